package pushrule

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"hansa/matrix"
)

func unmarshal(text string, v any) error { return json.Unmarshal([]byte(text), v) }

func mustDraft(t *testing.T, body string) Draft {
	t.Helper()
	var d Draft
	if err := unmarshal(body, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func ids(rules []Rule) string {
	var list []string
	for _, r := range rules {
		list = append(list, r.ID)
	}
	return strings.Join(list, " ")
}

func codeOf(err error) string {
	var e *matrix.Error
	if errors.As(err, &e) {
		return fmt.Sprintf("%d %s", e.Status, e.Code)
	}
	if err != nil {
		return "not a *matrix.Error: " + err.Error()
	}
	return ""
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	rs := Defaults(alice)
	if got, want := ids(rs.Override), ".m.rule.master .m.rule.suppress_notices .m.rule.invite_for_me .m.rule.member_event "+
		".m.rule.is_user_mention .m.rule.is_room_mention .m.rule.tombstone .m.rule.reaction .m.rule.room.server_acl "+
		".m.rule.suppress_edits"; got != want {
		t.Errorf("override rules %s, want %s", got, want)
	}
	if got, want := ids(rs.Underride), ".m.rule.call .m.rule.encrypted_room_one_to_one .m.rule.room_one_to_one .m.rule.message "+
		".m.rule.encrypted"; got != want {
		t.Errorf("underride rules %s, want %s", got, want)
	}
	for _, list := range [][]Rule{rs.Override, rs.Underride} {
		for _, r := range list {
			if !r.Default || r.Enabled != (r.ID != ".m.rule.master") {
				t.Errorf("%s: default %v, enabled %v", r.ID, r.Default, r.Enabled)
			}
			if _, err := newRule(Override, r.ID, Draft{Actions: r.Actions, Conditions: r.Conditions}); err != nil {
				t.Errorf("%s does not pass the checks for rules: %v", r.ID, err)
			}
		}
	}
}

func TestRuleset_JSON(t *testing.T) {
	t.Parallel()
	rs := Defaults(alice)
	rs.Override, rs.Underride = rs.Override[:1], rs.Underride[:0]
	rs.Override = append(rs.Override, Defaults(alice).Override[4])
	pattern := "cake"
	c := new(Custom)
	if err := c.Put(Content, "c", Draft{Actions: []jsontext.Value{}, Pattern: &pattern}, Place{}); err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(Apply(rs, c))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"override":[{"rule_id":".m.rule.master","default":true,"enabled":false,"conditions":[],"actions":[]},` +
		`{"rule_id":".m.rule.is_user_mention","default":true,"enabled":true,"conditions":[{"kind":"event_property_contains",` +
		`"key":"content.m\\.mentions.user_ids","value":"@alice:example.org"}],"actions":["notify",{"set_tweak":"sound","value":"default"},` +
		`{"set_tweak":"highlight"}]}],"content":[{"rule_id":"c","default":false,"enabled":true,"pattern":"cake","actions":[]}],` +
		`"room":[],"sender":[],"underride":[]}`
	if string(got) != want {
		t.Errorf("Ruleset as JSON:\n%s\nwant\n%s", got, want)
	}
}

func TestPut_Places(t *testing.T) {
	t.Parallel()
	c := new(Custom)
	d := Draft{Actions: []jsontext.Value{}}
	for _, tt := range []struct {
		id    string
		place Place
		want  string
		code  string
	}{
		{"a", Place{}, "a", ""},
		{"b", Place{}, "b a", ""},
		{"c", Place{Before: "a"}, "b c a", ""},
		{"d", Place{After: "b"}, "b d c a", ""},
		{"e", Place{Before: "b", After: "a"}, "e b d c a", ""},
		{"c", Place{}, "e b d c a", ""},
		{"c", Place{Before: "e"}, "c e b d a", ""},
		{"c", Place{After: "a"}, "e b d a c", ""},
		{"b", Place{After: "b"}, "e b d a c", ""},
		{"f", Place{After: "f"}, "e b d a c", "400 M_UNKNOWN"},
		{"f", Place{Before: "nope"}, "e b d a c", "400 M_UNKNOWN"},
		{"f", Place{After: ".m.rule.suppress_notices"}, "e b d a c", "400 M_UNKNOWN"},
	} {
		err := c.Put(Override, tt.id, d, tt.place)
		if got := ids(c.Rules.Override); got != tt.want || codeOf(err) != tt.code {
			t.Errorf("Put %s at %+v: %s, %q; want %s, %q", tt.id, tt.place, got, codeOf(err), tt.want, tt.code)
		}
	}
	all := Apply(Defaults(alice), c)
	if got := ids(all.Override); !strings.HasPrefix(got, ".m.rule.master e b d a c .m.rule.suppress_notices ") {
		t.Errorf("Apply orders override rules %s", got)
	}
}

func TestPut_KeepsTheSwitch(t *testing.T) {
	t.Parallel()
	c := new(Custom)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.Put(Underride, "a", mustDraft(t, `{"actions":["notify"]}`), Place{}))
	must(c.SetEnabled(Underride, "a", false))
	must(c.Put(Underride, "a", mustDraft(t, `{"actions":["notify","dont_notify","coalesce",{"set_tweak": "sound", "value": 1}]}`), Place{}))
	r, err := c.Rules.Find(Underride, "a")
	must(err)
	if r.Enabled || len(r.Actions) != 2 || string(r.Actions[1]) != `{"set_tweak":"sound","value":1}` {
		t.Errorf("changed rule is %+v", r)
	}
	must(c.Delete(Underride, "a"))
	must(c.Put(Underride, "a", mustDraft(t, `{"actions":[]}`), Place{}))
	if r, err = c.Rules.Find(Underride, "a"); err != nil || !r.Enabled {
		t.Errorf("a rule made again is %+v, %v; want it enabled", r, err)
	}
}

func TestC190_BadRules(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", MaxPattern+1)
	for _, tt := range []struct{ name, kind, id, body, code string }{
		{"fine", "override", "x", `{"actions":[]}`, ""},
		{"unknown kind", "overide", "x", `{"actions":[]}`, "400 M_INVALID_PARAM"},
		{"server's id", "override", ".m.rule.mine", `{"actions":[]}`, "400 M_INVALID_PARAM"},
		{"slash", "override", "a/b", `{"actions":[]}`, "400 M_INVALID_PARAM"},
		{"backslash", "override", `a\b`, `{"actions":[]}`, "400 M_INVALID_PARAM"},
		{"null character", "override", "a\x00", `{"actions":[]}`, "400 M_INVALID_PARAM"},
		{"empty id", "override", "", `{"actions":[]}`, "400 M_INVALID_PARAM"},
		{"long id", "override", strings.Repeat("a", 256), `{"actions":[]}`, "400 M_INVALID_PARAM"},
		{"id that is no UTF-8", "override", "\xff", `{"actions":[]}`, "400 M_INVALID_PARAM"},
		{"room", "room", "!a:b", `{"actions":[],"pattern":5e0}`, "body"},
		{"room rule for a room", "room", "!a:b", `{"actions":[],"conditions":[]}`, ""},
		{"room rule for an alias", "room", "#a:b", `{"actions":[]}`, "400 M_INVALID_PARAM"},
		{"sender rule for a user", "sender", "@a:b", `{"actions":[]}`, ""},
		{"sender rule for a server", "sender", "b", `{"actions":[]}`, "400 M_INVALID_PARAM"},
		{"no actions", "override", "x", `{}`, "400 M_MISSING_PARAM"},
		{"null actions", "override", "x", `{"actions":null}`, "400 M_MISSING_PARAM"},
		{"unknown action", "override", "x", `{"actions":["explode"]}`, "400 M_INVALID_PARAM"},
		{"number as action", "override", "x", `{"actions":[1]}`, "400 M_BAD_JSON"},
		{"action without tweak", "override", "x", `{"actions":[{"value":1}]}`, "400 M_INVALID_PARAM"},
		{"tweak that is no string", "override", "x", `{"actions":[{"set_tweak":1}]}`, "400 M_INVALID_PARAM"},
		{"many actions", "override", "x", `{"actions":[` + strings.Repeat(`"notify",`, MaxActions) + `"notify"]}`, "400 M_INVALID_PARAM"},
		{"huge action", "override", "x", `{"actions":[{"set_tweak":"` + strings.Repeat("a", MaxValue) + `"}]}`, "400 M_INVALID_PARAM"},
		{"content", "content", "x", `{"actions":[],"pattern":"cake"}`, ""},
		{"content without pattern", "content", "x", `{"actions":[]}`, "400 M_MISSING_PARAM"},
		{"content with an empty pattern", "content", "x", `{"actions":[],"pattern":""}`, "400 M_INVALID_PARAM"},
		{"content with a long pattern", "content", "x", `{"actions":[],"pattern":"` + long + `"}`, "400 M_INVALID_PARAM"},
		{"condition that is no object", "override", "x", `{"actions":[],"conditions":["a"]}`, "400 M_BAD_JSON"},
		{"condition without kind", "override", "x", `{"actions":[],"conditions":[{}]}`, "400 M_BAD_JSON"},
		{"unknown condition", "override", "x", `{"actions":[],"conditions":[{"kind":"org.example","x":[]}]}`, ""},
		{"match without pattern", "override", "x", `{"actions":[],"conditions":[{"kind":"event_match","key":"type"}]}`, "400 M_INVALID_PARAM"},
		{"match without key", "override", "x", `{"actions":[],"conditions":[{"kind":"event_match","pattern":"a"}]}`, "400 M_INVALID_PARAM"},
		{"match with a long pattern", "override", "x", `{"actions":[],"conditions":[{"kind":"event_match","key":"type","pattern":"` + long + `"}]}`, "400 M_INVALID_PARAM"},
		{"value that is an object", "override", "x", `{"actions":[],"conditions":[{"kind":"event_property_is","key":"type","value":{}}]}`, "400 M_INVALID_PARAM"},
		{"value that is a fraction", "override", "x", `{"actions":[],"conditions":[{"kind":"event_property_is","key":"type","value":1.5}]}`, "400 M_INVALID_PARAM"},
		{"no value", "override", "x", `{"actions":[],"conditions":[{"kind":"event_property_contains","key":"type"}]}`, "400 M_INVALID_PARAM"},
		{"count without is", "underride", "x", `{"actions":[],"conditions":[{"kind":"room_member_count"}]}`, "400 M_INVALID_PARAM"},
		{"count of words", "underride", "x", `{"actions":[],"conditions":[{"kind":"room_member_count","is":"=>2"}]}`, "400 M_INVALID_PARAM"},
		{"many conditions", "underride", "x", `{"actions":[],"conditions":[` + strings.Repeat(`{"kind":"a"},`, MaxConditions) + `{"kind":"a"}]}`, "400 M_INVALID_PARAM"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var d Draft
			if err := unmarshal(tt.body, &d); err != nil {
				if tt.code != "body" {
					t.Fatal(err)
				}
				return
			}
			c := new(Custom)
			err := c.Put(Kind(tt.kind), tt.id, d, Place{})
			if got := codeOf(err); got != tt.code {
				t.Errorf("Put: %q, want %q", got, tt.code)
			}
			if n := c.count(); (n == 1) != (err == nil) {
				t.Errorf("%d rules after %v", n, err)
			}
		})
	}
}

func TestC190_Caps(t *testing.T) {
	t.Parallel()
	c := new(Custom)
	d := Draft{Actions: []jsontext.Value{}}
	for i := range MaxRules {
		if err := c.Put(Room, fmt.Sprintf("!%d:example.org", i), d, Place{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := codeOf(c.Put(Sender, "@a:b", d, Place{})); got != "400 M_INVALID_PARAM" {
		t.Errorf("one rule too many: %q", got)
	}
	if err := c.Put(Room, "!7:example.org", d, Place{}); err != nil {
		t.Errorf("changing a rule when there are as many as may be: %v", err)
	}
	c = new(Custom)
	big := Draft{Actions: []jsontext.Value{jsontext.Value(`{"set_tweak":"` + strings.Repeat("a", MaxValue-100) + `"}`)}}
	var err error
	for i := 0; err == nil && i < MaxRules; i++ {
		err = c.Put(Override, fmt.Sprint(i), big, Place{})
	}
	if got := codeOf(err); got != "413 M_TOO_LARGE" || c.size() > MaxSize {
		t.Errorf("too much: %q with %d bytes kept", got, c.size())
	}
	many := slices.Repeat(big.Actions, MaxActions)
	if got := codeOf(c.SetActions(Override, ".m.rule.reaction", many)); got != "413 M_TOO_LARGE" {
		t.Errorf("too many actions of a default rule: %q", got)
	}
	if _, ok := c.Changes[".m.rule.reaction"]; ok {
		t.Error("a refused change was kept")
	}
}

// TestC190_HostileRules: one evaluation stays below 5 ms whatever the rules and the event hold.
func TestC190_HostileRules(t *testing.T) {
	const size = 60_000
	limit := patience(maxWork)
	keys := strings.Repeat("a.", 200) + "a"
	for name, tt := range map[string]struct {
		kind    Kind
		draft   Draft
		content string
	}{
		"globs of stars": {Content, Draft{Pattern: ptr(strings.Repeat("a*", MaxPattern/2-8) + "b")}, `{"body":"` + strings.Repeat("a", size) + `"}`},
		"globs of holes": {Content, Draft{Pattern: ptr(strings.Repeat("a?", MaxPattern/2-8) + "b")}, `{"body":"` + strings.Repeat("a", size) + `"}`},
		"words":          {Content, Draft{Pattern: ptr(strings.Repeat("a ", MaxPattern/2-8) + "b")}, `{"body":"` + strings.Repeat("a ", size/2) + `"}`},
		"capitals":       {Override, Draft{Conditions: []jsontext.Value{eventMatch("content.x", "*b*")}}, `{"x":"` + strings.Repeat("Ä", size/2) + `"}`},
		"deep keys":      {Override, Draft{Conditions: slices.Repeat([]jsontext.Value{eventMatch("content."+keys, "*")}, 2)}, strings.Repeat(`{"a":`, 300) + `"x"` + strings.Repeat(`}`, 300)},
		"wide objects":   {Override, Draft{Conditions: []jsontext.Value{eventMatch("content.x.y", "*")}}, `{"x":{` + wide(5000) + `}}`},
		"names":          {Override, Draft{Conditions: slices.Repeat([]jsontext.Value{jsontext.Value(`{"kind":"contains_display_name"}`)}, 8)}, `{"body":"` + strings.Repeat("alice ", size/6) + `"}`},
	} {
		t.Run(name, func(t *testing.T) {
			c := new(Custom)
			tt.draft.Actions = []jsontext.Value{[]byte(`"notify"`)}
			var err error
			for i := 0; err == nil && i < MaxRules; i++ {
				if tt.draft.Pattern != nil {
					tt.draft.Pattern = ptr(fmt.Sprintf("%s%d", *tt.draft.Pattern, i%10))
					*tt.draft.Pattern = (*tt.draft.Pattern)[:min(len(*tt.draft.Pattern), MaxPattern)]
				}
				err = c.Put(tt.kind, fmt.Sprint("r", i), tt.draft, Place{})
			}
			e := Compile(Apply(Defaults(alice), c), alice)
			best := time.Hour
			for range 10 {
				begin := time.Now()
				s := NewSubject(newEvent("m.room.message", tt.content))
				e.Evaluate(s, group())
				best = min(best, time.Since(begin))
			}
			t.Logf("%d rules: %v", c.count(), best)
			if best > limit {
				t.Errorf("evaluating %d rules took %v, want at most %v", c.count(), best, limit)
			}
		})
	}
}

// patience is 5 ms on a machine at leisure, and more where even a plain loop of as many steps takes its time (a busy
// machine, the race detector).
func patience(steps int) time.Duration {
	table, text := make([]uint64, 256), make([]byte, 1<<12)
	best := time.Hour
	for range 3 {
		begin, sum := time.Now(), uint64(1)
		for i := range steps {
			sum = sum<<1&table[text[i&(1<<12-1)]] | sum
		}
		if sum == 0 {
			panic("unreachable: keeps the loop")
		}
		best = min(best, time.Since(begin))
	}
	return max(5*time.Millisecond, 6*best)
}

func ptr(s string) *string { return &s }

func wide(n int) string {
	var parts []string
	for i := range n {
		parts = append(parts, fmt.Sprintf(`"k%d":1`, i))
	}
	return strings.Join(parts, ",")
}

func TestDefaultRules_CanBeChanged(t *testing.T) {
	t.Parallel()
	c := new(Custom)
	if err := c.SetEnabled(Underride, ".m.rule.message", false); err != nil {
		t.Fatal(err)
	}
	if err := c.SetActions(Underride, ".m.rule.call", []jsontext.Value{}); err != nil {
		t.Fatal(err)
	}
	all := Apply(Defaults(alice), c)
	message, err := all.Find(Underride, ".m.rule.message")
	if err != nil || message.Enabled || len(message.Actions) != 1 {
		t.Errorf("switched rule is %+v, %v", message, err)
	}
	call, err := all.Find(Underride, ".m.rule.call")
	if err != nil || !call.Enabled || len(call.Actions) != 0 {
		t.Errorf("silenced rule is %+v, %v", call, err)
	}
	for name, err := range map[string]error{
		"unknown default rule":  c.SetEnabled(Override, ".m.rule.nope", true),
		"other kind":            c.SetEnabled(Override, ".m.rule.message", true),
		"unknown own rule":      c.SetActions(Room, "!a:b", []jsontext.Value{}),
		"unknown rule, deleted": c.Delete(Room, "!a:b"),
	} {
		if got := codeOf(err); got != "404 M_NOT_FOUND" {
			t.Errorf("%s: %q, want 404 M_NOT_FOUND", name, got)
		}
	}
	for name, err := range map[string]error{
		"delete a default rule": c.Delete(Override, ".m.rule.master"),
		"delete, bad kind":      c.Delete("x", "y"),
		"switch, bad kind":      c.SetEnabled("x", "y", true),
	} {
		if got := codeOf(err); got != "400 M_INVALID_PARAM" {
			t.Errorf("%s: %q, want 400 M_INVALID_PARAM", name, got)
		}
	}
	if _, err := all.Find("x", "y"); codeOf(err) != "400 M_INVALID_PARAM" {
		t.Errorf("find, bad kind: %v", err)
	}
}

func TestCopyRoom(t *testing.T) {
	t.Parallel()
	c := new(Custom)
	body := `{"actions":[],"conditions":[{"kind":"event_match","key":"room_id","pattern":"!old:x"}]}`
	for _, kind := range []Kind{Override, Room} {
		if err := c.Put(kind, "!old:x", mustDraft(t, body), Place{}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := c.CopyRoom("!old:x", "!new:x"); err != nil {
			t.Fatal(err)
		}
	}
	if ids(c.Rules.Room) != "!new:x !old:x" || ids(c.Rules.Override) != "!new:x !old:x" {
		t.Errorf("rules are %s and %s", ids(c.Rules.Room), ids(c.Rules.Override))
	}
	if got := string(c.Rules.Override[0].Conditions[0]); !strings.Contains(got, `"!new:x"`) {
		t.Errorf("copied condition is %s", got)
	}
	if got := string(c.Rules.Override[1].Conditions[0]); !strings.Contains(got, `"!old:x"`) {
		t.Errorf("old condition is %s", got)
	}
}

func TestCustom_EncodeAndClone(t *testing.T) {
	t.Parallel()
	c := new(Custom)
	if err := c.Put(Override, "a", mustDraft(t, `{"actions":["notify"],"conditions":[{"kind":"x","y":1}]}`), Place{}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{".m.rule.reaction", ".m.rule.tombstone", ".m.rule.master"} {
		if err := c.SetEnabled(Override, id, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.SetActions(Override, ".m.rule.reaction", []jsontext.Value{}); err != nil {
		t.Fatal(err)
	}
	before, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseCustom(before)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Apply(Defaults(alice), c), Apply(Defaults(alice), back)); diff != "" {
		t.Errorf("rules differ after storing them: %s", diff)
	}
	d := c.Clone()
	if err := errors.Join(d.SetEnabled(Override, "a", false), d.SetEnabled(Override, ".m.rule.master", false), d.Delete(Override, "a")); err != nil {
		t.Fatal(err)
	}
	if after, err := c.Encode(); err != nil || string(after) != string(before) {
		t.Errorf("changing a clone changed the original: %s, %v", after, err)
	}
	if _, err := ParseCustom([]byte(`{"rules":[]}`)); err == nil {
		t.Error("ParseCustom accepts an array of rules")
	}
}

// TestPut_AgreesWithAList does the same to a plain list of names.
func TestPut_AgreesWithAList(t *testing.T) {
	t.Parallel()
	names := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"})
	rapid.Check(t, func(t *rapid.T) {
		c, list := new(Custom), []string{}
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			id := names.Draw(t, "id")
			if rapid.Bool().Draw(t, "delete") {
				if err := c.Delete(Override, id); (err == nil) != slices.Contains(list, id) {
					t.Fatalf("Delete(%s) of %v: %v", id, list, err)
				}
				list = slices.DeleteFunc(list, func(s string) bool { return s == id })
				continue
			}
			before := names.Draw(t, "before")
			err := c.Put(Override, id, Draft{Actions: []jsontext.Value{}}, Place{Before: before})
			if (err == nil) != slices.Contains(list, before) {
				if len(list) == 0 {
					if err := c.Put(Override, id, Draft{Actions: []jsontext.Value{}}, Place{}); err != nil {
						t.Fatal(err)
					}
					list = append(list, id)
					continue
				}
				t.Fatalf("Put(%s) before %s of %v: %v", id, before, list, err)
			}
			if err == nil && id != before {
				list = slices.DeleteFunc(list, func(s string) bool { return s == id })
				list = slices.Insert(list, slices.Index(list, before), id)
			}
			if got := ids(c.Rules.Override); got != strings.Join(list, " ") {
				t.Fatalf("rules are %s, want %v", got, list)
			}
		}
	})
}

func FuzzRules(f *testing.F) {
	f.Add("override", "x", `{"actions":["notify",{"set_tweak":"sound","value":"x"}],"conditions":[{"kind":"event_match","key":"content.body","pattern":"a*b"}]}`, `{"body":"a b"}`)
	f.Add("content", "x", `{"actions":[],"pattern":"*a?b*"}`, `{"body":"a\u0000b"}`)
	f.Add("underride", "x", `{"actions":[],"conditions":[{"kind":"event_property_is","key":"content.a\\.b\\\\.","value":null}]}`, `{"a.b\\":{"":null}}`)
	f.Add("room", "!a:b", `{"actions":[]}`, `{"m.mentions":{"user_ids":[1,null,{}],"room":true}}`)
	f.Fuzz(func(t *testing.T, kind, id, body, content string) {
		var d Draft
		if unmarshal(body, &d) != nil {
			return
		}
		c := new(Custom)
		if err := c.Put(Kind(kind), id, d, Place{}); err != nil {
			if strings.HasPrefix(codeOf(err), "not") {
				t.Fatal(err)
			}
			return
		}
		stored, err := c.Encode()
		if err != nil {
			t.Fatalf("a rule that was accepted cannot be stored: %v", err)
		}
		back, err := ParseCustom(stored)
		if err != nil {
			t.Fatalf("a rule that was stored cannot be read: %v", err)
		}
		s := NewSubject(newEvent("m.room.message", content))
		one := Compile(Apply(Defaults(alice), c), alice).Evaluate(s, group())
		two := Compile(Apply(Defaults(alice), back), alice).Evaluate(s, group())
		if one.Rule != two.Rule || one.Notify != two.Notify || string(one.Tweaks) != string(two.Tweaks) {
			t.Errorf("the stored rule says %+v, the original %+v", two, one)
		}
	})
}
