package pushrule

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/event"
)

const (
	alice = matrix.UserID("@alice:example.org")
	bob   = matrix.UserID("@bob:example.org")
)

func newEvent(typ, content string) *event.Event {
	return &event.Event{
		ID: "$143273582443PhrSn", RoomID: "!636q39766251:example.com", Type: typ, Sender: bob,
		Content: jsontext.Value(content), OriginServerTS: 1432735824653,
	}
}

func newState(typ, key, content string) *event.Event {
	e := newEvent(typ, content)
	e.StateKey = &key
	return e
}

// group is a room of ten where bob may do nothing special and alice is called Alice.
func group() *RoomContext {
	return &RoomContext{
		MemberCount:       10,
		PowerLevel:        func(matrix.UserID) int64 { return 0 },
		NotificationLevel: func(string) int64 { return 50 },
		DisplayName:       func(matrix.UserID) string { return "Alice Margatroid" },
	}
}

func TestEvaluate_Defaults(t *testing.T) {
	t.Parallel()
	pair, boss := group(), group()
	pair.MemberCount = 2
	boss.PowerLevel = func(u matrix.UserID) int64 {
		if u == bob {
			return 50
		}
		return 0
	}
	mention := `{"body":"hi","m.mentions":{"user_ids":["@carol:example.org","@alice:example.org"]}}`
	for _, tt := range []struct {
		name  string
		ev    *event.Event
		room  *RoomContext
		rule  string
		sound string
		// flags holds n for notify and h for highlight.
		flags string
	}{
		{"message", newEvent("m.room.message", `{"msgtype":"m.text","body":"hi"}`), group(), ".m.rule.message", "", "n"},
		{"message between two", newEvent("m.room.message", `{"body":"hi"}`), pair, ".m.rule.room_one_to_one", "default", "n"},
		{"notice", newEvent("m.room.message", `{"msgtype":"m.notice","body":"hi"}`), pair, ".m.rule.suppress_notices", "", ""},
		{"encrypted", newEvent("m.room.encrypted", `{}`), group(), ".m.rule.encrypted", "", "n"},
		{"encrypted between two", newEvent("m.room.encrypted", `{}`), pair, ".m.rule.encrypted_room_one_to_one", "default", "n"},
		{"call", newEvent("m.call.invite", `{}`), group(), ".m.rule.call", "ring", "n"},
		{"invite for me", newState("m.room.member", string(alice), `{"membership":"invite"}`), group(), ".m.rule.invite_for_me", "default", "n"},
		{"invite for another", newState("m.room.member", "@carol:x", `{"membership":"invite"}`), group(), ".m.rule.member_event", "", ""},
		{"join", newState("m.room.member", string(bob), `{"membership":"join"}`), group(), ".m.rule.member_event", "", ""},
		{"mention", newEvent("m.room.message", mention), group(), ".m.rule.is_user_mention", "default", "nh"},
		{"name in the body", newEvent("m.room.message", `{"body":"alice"}`), group(), ".m.rule.message", "", "n"},
		{"room mention", newEvent("m.room.message", `{"body":"x","m.mentions":{"room":true}}`), boss, ".m.rule.is_room_mention", "", "nh"},
		{"room mention without power", newEvent("m.room.message", `{"body":"x","m.mentions":{"room":true}}`), group(), ".m.rule.message", "", "n"},
		{"room mention that is a string", newEvent("m.room.message", `{"m.mentions":{"room":"true"}}`), boss, ".m.rule.message", "", "n"},
		{"tombstone", newState("m.room.tombstone", "", `{}`), group(), ".m.rule.tombstone", "", "nh"},
		{"tombstone with a key", newState("m.room.tombstone", "x", `{}`), group(), "", "", ""},
		{"tombstone that is no state", newEvent("m.room.tombstone", `{}`), group(), "", "", ""},
		{"reaction", newEvent("m.reaction", `{}`), group(), ".m.rule.reaction", "", ""},
		{"server ACL", newState("m.room.server_acl", "", `{}`), group(), ".m.rule.room.server_acl", "", ""},
		{"edit", newEvent("m.room.message", `{"body":"*","m.relates_to":{"rel_type":"m.replace"}}`), group(), ".m.rule.suppress_edits", "", ""},
		{"topic", newState("m.room.topic", "", `{"topic":"x"}`), group(), "", "", ""},
		{"broken content", newEvent("m.room.message", `[]`), group(), ".m.rule.message", "", "n"},
		{"no content", newEvent("m.room.message", ``), group(), ".m.rule.message", "", "n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := Compile(Defaults(alice), alice).Evaluate(NewSubject(tt.ev), tt.room)
			flags := ""
			if got.Notify {
				flags += "n"
			}
			if got.Highlight {
				flags += "h"
			}
			if got.Rule != tt.rule || got.Sound != tt.sound || flags != tt.flags {
				t.Errorf("Evaluate = %q, sound %q, flags %q; want %q, %q, %q", got.Rule, got.Sound, flags, tt.rule, tt.sound, tt.flags)
			}
			shared := Compile(Defaults("@carol:x"), "@carol:x").For(alice).Evaluate(NewSubject(tt.ev), tt.room)
			if shared.Rule != got.Rule {
				t.Errorf("For: rule %q, want %q", shared.Rule, got.Rule)
			}
		})
	}
}

func TestEvaluate_OwnEventsNeverNotify(t *testing.T) {
	t.Parallel()
	got := Compile(Defaults(bob), bob).Evaluate(NewSubject(newEvent("m.room.message", `{}`)), group())
	if got.Notify || got.Rule != "" {
		t.Errorf("Evaluate = %+v, want nothing", got)
	}
}

// only compiles one override rule with these conditions.
func only(conditions ...string) *Evaluator {
	r := Rule{ID: "it", Enabled: true, Actions: []jsontext.Value{[]byte(`"notify"`)}}
	for _, c := range conditions {
		r.Conditions = append(r.Conditions, jsontext.Value(c))
	}
	return Compile(Ruleset{Override: []Rule{r}}, alice)
}

func TestEvaluate_Conditions(t *testing.T) {
	t.Parallel()
	topic := func(v string) *event.Event { return newState("m.room.topic", "", `{"topic":`+v+`}`) }
	body := func(s string) *event.Event { return newEvent("m.room.message", `{"body":`+quote(s)+`}`) }
	const isTopic = `{"kind":"event_match","key":"content.topic","pattern":"lunc?*"}`
	const isBody = `{"kind":"event_match","key":"content.body","pattern":"ex*ple"}`
	const federate = `{"kind":"event_property_is","key":"content.m\\.federate","value":true}`
	const alias = `{"kind":"event_property_contains","key":"content.alt_aliases","value":"#myroom:example.com"}`
	deep := strings.Repeat(`{"a":`, maxDepth-1) + `"x"` + strings.Repeat(`}`, maxDepth-1)
	for _, tt := range []struct {
		name, condition string
		ev              *event.Event
		want            bool
	}{
		{"no condition", "", topic(`""`), true},
		{"glob", isTopic, topic(`"Lunch plans"`), true},
		{"glob in capitals", isTopic, topic(`"LUNCH"`), true},
		{"leading space", isTopic, topic(`" lunch"`), false},
		{"question mark needs a character", isTopic, topic(`"lunc"`), false},
		{"null", isTopic, topic(`null`), false},
		{"absent", `{"kind":"event_match","key":"content.nope","pattern":"*"}`, topic(`""`), false},
		{"number is no string", `{"kind":"event_match","key":"content.topic","pattern":"*"}`, topic(`5`), false},
		{"object is no string", `{"kind":"event_match","key":"content.topic","pattern":"*"}`, topic(`{}`), false},
		{"body", isBody, body("An example event."), true},
		{"body at its ends", isBody, body("exple"), true},
		{"body over words", isBody, body("An exciting triple-whammy"), true},
		{"body inside a word", isBody, body("unexampled"), false},
		{"formatted body is no body", isBody, newEvent("m.room.message", `{"formatted_body":"example"}`), false},
		{"body matched as a whole elsewhere", `{"kind":"event_match","key":"content.x","pattern":"b"}`, newEvent("a", `{"x":"a b c"}`), false},
		{"type", `{"kind":"event_match","key":"type","pattern":"M.Room.*"}`, topic(`""`), true},
		{"sender", `{"kind":"event_match","key":"sender","pattern":"@bob:*"}`, topic(`""`), true},
		{"room", `{"kind":"event_match","key":"room_id","pattern":"!636q39766251:example.com"}`, topic(`""`), true},
		{"event id", `{"kind":"event_match","key":"event_id","pattern":"$143273582443PhrSn"}`, topic(`""`), true},
		{"time", `{"kind":"event_property_is","key":"origin_server_ts","value":1432735824653}`, topic(`""`), true},
		{"path ends in an object", `{"kind":"event_match","key":"content","pattern":"*"}`, topic(`""`), false},
		{"path goes through a string", `{"kind":"event_match","key":"type.x","pattern":"*"}`, topic(`""`), false},
		{"missing pattern", `{"kind":"event_match","key":"type"}`, topic(`""`), false},
		{"escaped dot", federate, newState("m.room.create", "", `{"m.federate":true}`), true},
		{"string for boolean", federate, newState("m.room.create", "", `{"m.federate":"true"}`), false},
		{"number for boolean", federate, newState("m.room.create", "", `{"m.federate":1}`), false},
		{"unescaped dot", `{"kind":"event_property_is","key":"content.m.federate","value":true}`, newEvent("a", `{"m.federate":true}`), false},
		{"unescaped dot and nested", `{"kind":"event_property_is","key":"content.m.federate","value":true}`, newEvent("a", `{"m":{"federate":true}}`), true},
		{"null is null", `{"kind":"event_property_is","key":"content.x","value":null}`, newEvent("a", `{"x":null}`), true},
		{"absent is not null", `{"kind":"event_property_is","key":"content.x","value":null}`, newEvent("a", `{}`), false},
		{"integer", `{"kind":"event_property_is","key":"content.x","value":-3}`, newEvent("a", `{"x":-3}`), true},
		{"float is no integer", `{"kind":"event_property_is","key":"content.x","value":3}`, newEvent("a", `{"x":3.0}`), false},
		{"integers beyond 2^53 match nothing", `{"kind":"event_property_is","key":"content.x","value":9007199254740992}`, newEvent("a", `{"x":9007199254740992}`), false},
		{"strings keep their case", `{"kind":"event_property_is","key":"content.x","value":"A"}`, newEvent("a", `{"x":"a"}`), false},
		{"array is not its element", `{"kind":"event_property_is","key":"content.x","value":"a"}`, newEvent("a", `{"x":["a"]}`), false},
		{"value that is an array", `{"kind":"event_property_is","key":"content.x","value":["a"]}`, newEvent("a", `{"x":["a"]}`), false},
		{"contains", alias, newState("m.room.canonical_alias", "", `{"alt_aliases":["#somewhere:example.org","#myroom:example.com"]}`), true},
		{"contains a part", alias, newState("m.room.canonical_alias", "", `{"alt_aliases":["#myroom:example.com.org"]}`), false},
		{"contains in a string", alias, newState("m.room.canonical_alias", "", `{"alt_aliases":"#myroom:example.com"}`), false},
		{"contains beside others", alias, newEvent("a", `{"alt_aliases":[[],{},1.5,null,"#myroom:example.com"]}`), true},
		{"contains in a nested array", alias, newEvent("a", `{"alt_aliases":[["#myroom:example.com"]]}`), false},
		{"as deep as can be", `{"kind":"event_match","key":"content` + strings.Repeat(".a", maxDepth-1) + `","pattern":"x"}`, newEvent("a", deep), true},
		{"too deep", `{"kind":"event_match","key":"content.b` + strings.Repeat(".a", maxDepth) + `","pattern":"x"}`, newEvent("a", `{"b":{"a":`+deep+`}}`), false},
		{"display name", `{"kind":"contains_display_name"}`, body("hello alice margatroid!"), true},
		{"part of a display name", `{"kind":"contains_display_name"}`, body("hello alice"), false},
		{"display name without body", `{"kind":"contains_display_name"}`, topic(`""`), false},
		{"members", `{"kind":"room_member_count","is":"10"}`, topic(`""`), true},
		{"members ==", `{"kind":"room_member_count","is":"==10"}`, topic(`""`), true},
		{"members >", `{"kind":"room_member_count","is":">10"}`, topic(`""`), false},
		{"members >=", `{"kind":"room_member_count","is":">=10"}`, topic(`""`), true},
		{"members <", `{"kind":"room_member_count","is":"<11"}`, topic(`""`), true},
		{"members <=", `{"kind":"room_member_count","is":"<=9"}`, topic(`""`), false},
		{"members < a great number", `{"kind":"room_member_count","is":"<99999999999999999999"}`, topic(`""`), true},
		{"members =", `{"kind":"room_member_count","is":"=10"}`, topic(`""`), false},
		{"members as a number", `{"kind":"room_member_count","is":10}`, topic(`""`), false},
		{"permission", `{"kind":"sender_notification_permission","key":"room"}`, topic(`""`), false},
		{"unknown kind", `{"kind":"org.example.moon","phase":"full"}`, topic(`""`), false},
		{"other case of a name", `{"KIND":"event_match","kind":"room_member_count","is":"10"}`, topic(`""`), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := only()
			if tt.condition != "" {
				e = only(tt.condition)
			}
			if got := e.Evaluate(NewSubject(tt.ev), group()); got.Notify != tt.want {
				t.Errorf("condition %s on %s: %v, want %v", tt.condition, tt.ev.Content, got.Notify, tt.want)
			}
		})
	}
}

func TestEvaluate_AllConditionsMustHold(t *testing.T) {
	t.Parallel()
	yes, no := `{"kind":"event_match","key":"type","pattern":"a"}`, `{"kind":"unknown"}`
	s := NewSubject(newEvent("a", `{}`))
	if !only(yes, yes).Evaluate(s, group()).Notify || only(yes, no).Evaluate(s, group()).Notify {
		t.Error("conditions are not joined by and")
	}
}

func TestEvaluate_RoomContextWithoutFunctions(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"contains_display_name", "sender_notification_permission"} {
		e := only(`{"kind":"` + kind + `","key":"room"}`)
		if e.Evaluate(NewSubject(newEvent("a", `{"body":"x"}`)), new(RoomContext)).Notify {
			t.Errorf("%s matched without being told", kind)
		}
	}
}

func TestEvaluate_OrderOfKinds(t *testing.T) {
	t.Parallel()
	ev := newEvent("m.room.message", `{"body":"some cake"}`)
	c := new(Custom)
	s := NewSubject(ev)
	pattern := "cake"
	put := func(kind Kind, id string) {
		t.Helper()
		if err := c.Put(kind, id, Draft{Actions: []jsontext.Value{[]byte(`{"set_tweak":"sound","value":"s"}`)}, Pattern: &pattern}, Place{}); err != nil {
			t.Fatal(err)
		}
		got := Compile(Apply(Defaults(alice), c), alice).Evaluate(s, group())
		if got.Kind != kind || got.Rule != id || got.Notify || got.Highlight || got.Sound != "s" {
			t.Errorf("after adding %s %s: %+v", kind, id, got)
		}
	}
	put(Underride, "u")
	put(Sender, string(bob))
	put(Room, string(ev.RoomID))
	put(Content, "c")
	put(Override, "o")
	if err := c.SetEnabled(Override, ".m.rule.master", true); err != nil {
		t.Fatal(err)
	}
	if got := Compile(Apply(Defaults(alice), c), alice).Evaluate(s, group()); got.Rule != ".m.rule.master" {
		t.Errorf("with master: %+v", got)
	}
}

func TestEvaluate_Tweaks(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		actions   string
		tweaks    string
		highlight bool
	}{
		{`["notify"]`, `{}`, false},
		{`["notify",{"set_tweak":"highlight"}]`, `{"highlight":true}`, true},
		{`["notify",{"set_tweak":"highlight","value":false}]`, `{"highlight":false}`, false},
		{`["notify",{"set_tweak":"highlight","value":"x"}]`, `{"highlight":"x"}`, false},
		{`[{"set_tweak":"highlight"}]`, `{"highlight":true}`, false},
		{`["notify",{"set_tweak":"flash","value":{"hz":2}},{"set_tweak":"b"}]`, `{"b":null,"flash":{"hz":2}}`, false},
		{`["notify",{"set_tweak":7},5,"what"]`, `{}`, false},
	} {
		var r Rule
		if err := unmarshal(`{"rule_id":"x","enabled":true,"default":false,"conditions":[],"actions":`+tt.actions+`}`, &r); err != nil {
			t.Fatal(err)
		}
		got := Compile(Ruleset{Underride: []Rule{r}}, alice).Evaluate(NewSubject(newEvent("a", `{}`)), group())
		if string(got.Tweaks) != tt.tweaks || got.Highlight != tt.highlight {
			t.Errorf("actions %s: tweaks %s, highlight %v; want %s, %v", tt.actions, got.Tweaks, got.Highlight, tt.tweaks, tt.highlight)
		}
	}
}

// TestJ22_MentionsBomb: evaluation stays linear, whoever is mentioned.
func TestJ22_MentionsBomb(t *testing.T) {
	var ids []string
	for i := range 2500 {
		ids = append(ids, fmt.Sprintf(`"@u%d:example.org"`, i), `7`, `{"user_ids":[]}`)
	}
	ids = append(ids, `"@alice:example.org"`)
	s := NewSubject(newEvent("m.room.message", `{"body":"`+strings.Repeat("@room ", 200)+`","m.mentions":{"user_ids":[`+strings.Join(ids, ",")+`]}}`))
	e := Compile(Defaults(alice), alice)
	begin := time.Now()
	for range 10_000 {
		if got := e.Evaluate(s, group()); got.Rule != ".m.rule.is_user_mention" {
			t.Fatalf("Evaluate = %+v", got)
		}
	}
	if d := time.Since(begin); d > time.Second {
		t.Errorf("10,000 recipients took %v, want well below a second", d)
	}
}

func TestEvaluate_DoesNotAllocate(t *testing.T) {
	e, room := Compile(Defaults(alice), alice), group()
	s := NewSubject(newEvent("m.room.message", `{"msgtype":"m.text","body":"hello there, how are you?"}`))
	if n := testing.AllocsPerRun(100, func() { e.Evaluate(s, room) }); n != 0 {
		t.Errorf("Evaluate allocates %v times", n)
	}
}

func BenchmarkNewSubject(b *testing.B) {
	for name, ev := range map[string]*event.Event{
		"message":   newEvent("m.room.message", `{"body":"hello there, how are you?","m.mentions":{"user_ids":["@alice:example.org"]},"msgtype":"m.text"}`),
		"encrypted": newEvent("m.room.encrypted", `{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"`+strings.Repeat("AwgAEnACgAkL", 40)+`","device_id":"JLAFKJWSCS","sender_key":"`+strings.Repeat("a", 43)+`","session_id":"`+strings.Repeat("b", 43)+`"}`),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				NewSubject(ev)
			}
		})
	}
}

func BenchmarkEvaluate(b *testing.B) {
	keywords := new(Custom)
	for i := range 20 {
		word := fmt.Sprintf("keyword%d", i)
		if err := keywords.Put(Content, word, Draft{Actions: []jsontext.Value{[]byte(`"notify"`)}, Pattern: &word}, Place{}); err != nil {
			b.Fatal(err)
		}
	}
	for name, c := range map[string]*Custom{"defaults": nil, "20 keywords": keywords} {
		b.Run(name, func(b *testing.B) {
			e, room := Compile(Apply(Defaults(alice), c), alice), group()
			s := NewSubject(newEvent("m.room.message", `{"body":"hello there, how are you?","msgtype":"m.text"}`))
			b.ReportAllocs()
			for b.Loop() {
				e.Evaluate(s, room)
			}
		})
	}
}

func BenchmarkCompileDefaults(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Compile(Defaults(alice), alice)
	}
}
