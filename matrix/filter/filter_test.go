package filter

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"hansa/matrix"
)

func mustParse(t *testing.T, raw string) *Filter {
	t.Helper()
	f, err := Parse([]byte(raw))
	if err != nil {
		t.Fatalf("Parse(%s): %v", raw, err)
	}
	return f
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

func TestParse(t *testing.T) {
	t.Parallel()
	f := mustParse(t, `{
		"event_fields": ["type", "content.body"], "event_format": "federation",
		"presence": {"types": ["m.presence"], "not_senders": ["@alice:example.com"]}, "account_data": {"limit": 3},
		"room": {
			"rooms": ["!a:x"], "not_rooms": ["!b:x"], "include_leave": true,
			"state": {"lazy_load_members": true, "include_redundant_members": true},
			"timeline": {"limit": 10, "types": ["m.room.message"], "senders": ["@s:x"], "contains_url": false, "unread_thread_notifications": true},
			"ephemeral": {"not_types": ["*"]}, "account_data": {"rooms": []}
		},
		"org.example.later": {"a": [1]}
	}`)
	timeline := f.Room.Timeline
	for name, ok := range map[string]bool{
		"event_format":       f.Federation,
		"event_fields":       len(f.EventFields.Paths()) == 2,
		"presence":           f.Presence.Match("m.presence", "@bob:x", false) && !f.Presence.Match("m.presence", "@alice:example.com", false),
		"account_data limit": f.AccountData.Limit == 3,
		"rooms":              f.Room.Room("!a:x") && !f.Room.Room("!b:x") && !f.Room.Room("!c:x"),
		"include_leave":      f.Room.IncludeLeave,
		"lazy loading":       f.Room.State.LazyLoadMembers && f.Room.State.IncludeRedundantMembers && !timeline.LazyLoadMembers,
		"limit":              timeline.Limit == 10 && timeline.LimitOr(5) == 10 && f.Room.State.LimitOr(5) == 5,
		"threads":            timeline.UnreadThreadNotifications,
		"contains_url":       timeline.Match("m.room.message", "@s:x", false) && !timeline.Match("m.room.message", "@s:x", true),
		"types":              !timeline.Match("m.room.name", "@s:x", false) && !timeline.MatchType("m.room.name"),
		"senders":            !timeline.Match("m.room.message", "@t:x", false),
		"nothing":            f.Room.Ephemeral.MatchesNothing() && f.Room.AccountData.MatchesNothing() && !timeline.MatchesNothing(),
	} {
		if !ok {
			t.Errorf("%s was not read rightly", name)
		}
	}
}

func TestParse_EmptyMatchesAll(t *testing.T) {
	t.Parallel()
	f := mustParse(t, `{}`)
	if !f.Room.Room("!a:x") || !f.Room.RoomEvents(f.Room.Timeline, "!a:x") || !f.Room.Timeline.Match("a", "@b:c", true) ||
		!f.Presence.Match("a", "@b:c", false) || f.EventFields != nil || f.Federation || f.Presence.MatchesNothing() ||
		f.Room.State.MatchesNothing() || !f.Room.Timeline.MatchType("x") || !f.AccountData.MatchType("x") {
		t.Errorf("an empty filter hides something: %+v", f)
	}
	if r, err := ParseRoomEvent(nil); r != nil || err != nil {
		t.Errorf("ParseRoomEvent of nothing = %v, %v", r, err)
	}
	if !IsInline(`{"a":1}`) || IsInline("66696p746572") || IsInline("") {
		t.Error("IsInline is wrong")
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		filter, typ, sender string
		url, want           bool
	}{
		{`{}`, "a", "@b:c", false, true},
		{`{"types":[]}`, "a", "@b:c", false, false},
		{`{"senders":[]}`, "a", "@b:c", false, false},
		{`{"not_types":[]}`, "a", "@b:c", false, true},
		{`{"not_senders":[]}`, "a", "@b:c", false, true},
		{`{"types":["m.room.*"]}`, "m.room.message", "@b:c", false, true},
		{`{"types":["m.room.*"]}`, "m.roommessage", "@b:c", false, false},
		{`{"types":["m.room.*"]}`, "M.room.message", "@b:c", false, false},
		{`{"types":["m.r?om"]}`, "m.room", "@b:c", false, false},
		{`{"types":["m.r?om*"]}`, "m.r?om.x", "@b:c", false, true},
		{`{"types":["*"],"not_types":["m.room.member"]}`, "m.room.member", "@b:c", false, false},
		{`{"types":["m.room.member"],"not_types":["*"]}`, "m.room.member", "@b:c", false, false},
		{`{"types":["*.member","x"]}`, "m.room.member", "@b:c", false, true},
		{`{"senders":["@b:c"],"not_senders":["@b:c"]}`, "a", "@b:c", false, false},
		{`{"senders":["@b:*"]}`, "a", "@b:c", false, false},
		{`{"contains_url":true}`, "a", "@b:c", true, true},
		{`{"contains_url":true}`, "a", "@b:c", false, false},
		{`{"contains_url":false}`, "a", "@b:c", true, false},
		{`{"contains_url":false}`, "a", "@b:c", false, true},
	} {
		f, err := ParseRoomEvent([]byte(tt.filter))
		if err != nil {
			t.Fatalf("%s: %v", tt.filter, err)
		}
		if got := f.Match(tt.typ, tt.sender, tt.url); got != tt.want {
			t.Errorf("%s matches %s of %s with url %v: %v, want %v", tt.filter, tt.typ, tt.sender, tt.url, got, tt.want)
		}
	}
}

func TestRoom(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		filter string
		want   bool
	}{
		{`{}`, true}, {`{"rooms":[]}`, false}, {`{"rooms":["!a:x"]}`, true}, {`{"rooms":["!b:x"]}`, false},
		{`{"not_rooms":["!a:x"]}`, false}, {`{"rooms":["!a:x"],"not_rooms":["!a:x"]}`, false},
	} {
		f, err := ParseRoomEvent([]byte(tt.filter))
		if err != nil {
			t.Fatal(err)
		}
		outer := mustParse(t, `{"room":`+tt.filter+`}`)
		if f.Room("!a:x") != tt.want || outer.Room.Room("!a:x") != tt.want || outer.Room.RoomEvents(nil, "!a:x") != tt.want {
			t.Errorf("%s lets !a:x through: %v, want %v", tt.filter, f.Room("!a:x"), tt.want)
		}
	}
}

func TestJ31_HostileFilters(t *testing.T) {
	t.Parallel()
	list := func(n int, entry func(int) string) string {
		entries := make([]string, n)
		for i := range entries {
			entries[i] = `"` + entry(i) + `"`
		}
		return "[" + strings.Join(entries, ",") + "]"
	}
	room := func(int) string { return "!a:x" }
	for _, tt := range []struct{ name, raw, code string }{
		{"empty", ``, "400 M_NOT_JSON"},
		{"broken", `{"room":`, "400 M_NOT_JSON"},
		{"two values", `{} {}`, "400 M_NOT_JSON"},
		{"duplicate keys", `{"room":{},"room":{}}`, "400 M_NOT_JSON"},
		{"duplicate keys inside", `{"room":{"rooms":[],"rooms":[]}}`, "400 M_NOT_JSON"},
		{"lone surrogate", `{"event_fields":["\ud800"]}`, "400 M_NOT_JSON"},
		{"string", `"x"`, "400 M_BAD_JSON"},
		{"array", `[]`, "400 M_BAD_JSON"},
		{"null", `null`, "400 M_BAD_JSON"},
		{"room is null", `{"room":null}`, "400 M_BAD_JSON"},
		{"timeline is an array", `{"room":{"timeline":[]}}`, "400 M_BAD_JSON"},
		{"presence is a string", `{"presence":"x"}`, "400 M_BAD_JSON"},
		{"negative limit", `{"room":{"timeline":{"limit":-1}}}`, "400 M_INVALID_PARAM"},
		{"limit 0", `{"room":{"timeline":{"limit":0}}}`, "400 M_INVALID_PARAM"},
		{"limit -0", `{"room":{"timeline":{"limit":-0}}}`, "400 M_INVALID_PARAM"},
		{"limit as a string", `{"room":{"timeline":{"limit":"10"}}}`, "400 M_BAD_JSON"},
		{"limit as a fraction", `{"room":{"timeline":{"limit":10.0}}}`, "400 M_BAD_JSON"},
		{"limit with an exponent", `{"account_data":{"limit":1e1}}`, "400 M_BAD_JSON"},
		{"limit null", `{"account_data":{"limit":null}}`, "400 M_BAD_JSON"},
		{"types as a string", `{"presence":{"types":"m.presence"}}`, "400 M_BAD_JSON"},
		{"types null", `{"presence":{"types":null}}`, "400 M_BAD_JSON"},
		{"numbers among types", `{"presence":{"not_types":["a",1]}}`, "400 M_BAD_JSON"},
		{"null among types", `{"presence":{"not_types":[null]}}`, "400 M_BAD_JSON"},
		{"many types", `{"presence":{"types":` + list(MaxEntries+1, func(int) string { return "a" }) + `}}`, "400 M_INVALID_PARAM"},
		{"many globs", `{"presence":{"types":` + list(MaxWildcards+1, func(i int) string { return fmt.Sprint("*a*", i) }) + `}}`, "400 M_INVALID_PARAM"},
		{"10,000 globs", `{"presence":{"types":` + list(10_000, func(i int) string { return fmt.Sprint("*a*", i) }) + `}}`, "400 M_INVALID_PARAM"},
		{"100,000 rooms", `{"room":{"rooms":` + list(100_000, room) + `}}`, "400 M_INVALID_PARAM"},
		{"many rooms", `{"room":{"state":{"not_rooms":` + list(MaxEntries+1, room) + `}}}`, "400 M_INVALID_PARAM"},
		{"long type", `{"presence":{"types":["` + strings.Repeat("a", MaxEntry+1) + `"]}}`, "400 M_INVALID_PARAM"},
		{"sender that is no user", `{"presence":{"senders":["example.org"]}}`, "400 M_INVALID_PARAM"},
		{"room that is none", `{"room":{"not_rooms":[""]}}`, "400 M_INVALID_PARAM"},
		{"boolean as a string", `{"room":{"include_leave":"true"}}`, "400 M_BAD_JSON"},
		{"boolean as a number", `{"room":{"timeline":{"contains_url":1}}}`, "400 M_BAD_JSON"},
		{"boolean null", `{"room":{"state":{"lazy_load_members":null}}}`, "400 M_BAD_JSON"},
		{"unknown format", `{"event_format":"xml"}`, "400 M_INVALID_PARAM"},
		{"format of a wrong type", `{"event_format":1}`, "400 M_INVALID_PARAM"},
		{"event_fields as a string", `{"event_fields":"type"}`, "400 M_BAD_JSON"},
		{"deep", `{"x":` + strings.Repeat("[", 30_000) + strings.Repeat("]", 30_000) + `}`, "400 M_NOT_JSON"},
		{"other case", `{"ROOM":5,"Event_Format":"xml"}`, ""},
		{"unknown keys", `{"x":1,"room":{"y":null,"timeline":{"z":1.5e300}}}`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := Parse([]byte(tt.raw)); codeOf(err) != tt.code {
				t.Errorf("Parse: %v, want %q", err, tt.code)
			}
		})
	}
}

func TestJ31_GreatLimitsAreClamped(t *testing.T) {
	t.Parallel()
	for _, limit := range []string{"1000", "1001", "1000000000000", "99999999999999999999999999"} {
		f, err := ParseRoomEvent([]byte(`{"limit":` + limit + `}`))
		if err != nil || f.Limit != MaxLimit {
			t.Errorf("limit %s: %+v, %v", limit, f, err)
		}
	}
}

func TestJ31_BoundedMatching(t *testing.T) {
	globs := make([]string, MaxWildcards)
	for i := range globs {
		globs[i] = fmt.Sprintf(`"*a*a*a*a*a*a*a*a*b%d"`, i)
	}
	f := mustParse(t, `{"presence":{"types":[`+strings.Join(globs, ",")+`]}}`)
	typ := strings.Repeat("a", 255)
	best := time.Hour
	for range 10 {
		begin := time.Now()
		if f.Presence.Match(typ, "@a:b", false) {
			t.Fatal("matched")
		}
		best = min(best, time.Since(begin))
	}
	if best > time.Millisecond {
		t.Errorf("matching took %v, want well below a millisecond", best)
	}
}

func TestCanonical(t *testing.T) {
	t.Parallel()
	a := mustParse(t, `{"room": {"timeline":{"limit":5, "types":["\u0061"]}},  "event_format":"client", "zz":1}`)
	b := mustParse(t, `{"zz":1,"event_format":"client","room":{"timeline":{"types":["a"],"limit":5}}}`)
	if string(a.Canonical()) != string(b.Canonical()) {
		t.Errorf("equal filters differ: %s and %s", a.Canonical(), b.Canonical())
	}
	if want := `{"event_format":"client","room":{"timeline":{"limit":5,"types":["a"]}},"zz":1}`; string(a.Canonical()) != want {
		t.Errorf("Canonical = %s, want %s", a.Canonical(), want)
	}
	raw := []byte(`{"a":1}`)
	c := mustParse(t, string(raw))
	raw[2] = 'b'
	if string(c.Canonical()) != `{"a":1}` {
		t.Error("Canonical shares memory with what was parsed")
	}
}

func TestFields_Append(t *testing.T) {
	t.Parallel()
	const ev = `{"content":{"body":"b","m.relates_to":{"rel_type":"x","event_id":"$e"},"n":[1,{"a":2}]},"event_id":"$1","type":"t","un":{"a":{"b":{}}}}`
	for _, tt := range []struct {
		paths []string
		want  string
	}{
		{[]string{"type"}, `{"type":"t"}`},
		{[]string{"type", "event_id"}, `{"event_id":"$1","type":"t"}`},
		{[]string{"content.body"}, `{"content":{"body":"b"}}`},
		{[]string{"content", "content.body"}, `{"content":{"body":"b","m.relates_to":{"rel_type":"x","event_id":"$e"},"n":[1,{"a":2}]}}`},
		{[]string{"content.body", "content"}, `{"content":{"body":"b","m.relates_to":{"rel_type":"x","event_id":"$e"},"n":[1,{"a":2}]}}`},
		{[]string{`content.m\.relates_to.rel_type`}, `{"content":{"m.relates_to":{"rel_type":"x"}}}`},
		{[]string{`content.m.relates_to.rel_type`, "type"}, `{"type":"t"}`},
		{[]string{"content.nope"}, `{}`},
		{[]string{"content.nope", "event_id"}, `{"event_id":"$1"}`},
		{[]string{"content.body.deeper", "content.n.0"}, `{}`},
		{[]string{"un.a.b"}, `{"un":{"a":{"b":{}}}}`},
		{[]string{"un.a.c"}, `{}`},
		{[]string{""}, `{}`},
	} {
		got, err := NewFields(tt.paths).Append([]byte("x"), []byte(ev))
		if err != nil || string(got) != "x"+tt.want {
			t.Errorf("%q: %s, %v; want x%s", tt.paths, got, err, tt.want)
		}
	}
	if got, err := (*Fields)(nil).Append(nil, []byte(ev)); err != nil || string(got) != ev {
		t.Errorf("no fields: %s, %v", got, err)
	}
	if f := mustParse(t, `{"event_fields":[]}`); f.EventFields != nil {
		t.Error("an empty event_fields hides everything")
	}
	for _, broken := range []string{`{"type":`, `[]`, ``, `{"type":"a"`} {
		got, err := NewFields([]string{"type"}).Append(nil, []byte(broken))
		if string(got) != broken || err == nil && broken != "[]" {
			t.Errorf("broken event %s: %s, %v", broken, got, err)
		}
	}
}

// TestTypes_AgreeWithTheObvious compares the compiled lists with a walk over them.
func TestTypes_AgreeWithTheObvious(t *testing.T) {
	t.Parallel()
	entry := rapid.StringMatching(`[ab.]{0,3}\*?[ab.]{0,2}`)
	rapid.Check(t, func(t *rapid.T) {
		in, out := rapid.SliceOfN(entry, 0, 4).Draw(t, "in"), rapid.SliceOfN(entry, 0, 4).Draw(t, "out")
		if rapid.Bool().Draw(t, "absent") {
			in = nil
		}
		typ := rapid.StringMatching(`[ab.]{0,5}`).Draw(t, "type")
		f, err := newTypeFilter(in, out)
		if err != nil {
			t.Fatal(err)
		}
		want := (in == nil || anyMatches(in, typ)) && !anyMatches(out, typ)
		if got := f.match(typ); got != want {
			t.Fatalf("types %q, not %q, %q: %v, want %v", in, out, typ, got, want)
		}
		if f.nothing() && want {
			t.Fatalf("types %q, not %q match %q but are said to match nothing", in, out, typ)
		}
	})
}

func anyMatches(list []string, typ string) bool {
	for _, p := range list {
		before, after, star := strings.Cut(p, "*")
		if p == typ || star && len(typ) >= len(before)+len(after) && strings.HasPrefix(typ, before) && strings.HasSuffix(typ, after) {
			return true
		}
	}
	return false
}

func FuzzFilter(f *testing.F) {
	f.Add([]byte(`{"room":{"timeline":{"limit":10,"types":["m.*"],"senders":["@a:b"]},"rooms":["!a:b"]},"event_fields":["content.body"]}`))
	f.Add([]byte(`{"presence":{"not_types":["*"]},"event_format":"federation"}`))
	f.Add([]byte(`{"event_fields":["a\\.b","\\\\",""]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := Parse(raw)
		if err != nil {
			if strings.HasPrefix(codeOf(err), "not") {
				t.Fatal(err)
			}
			return
		}
		again, err := Parse(got.Canonical())
		if err != nil {
			t.Fatalf("the canonical form does not parse: %v", err)
		}
		if string(again.Canonical()) != string(got.Canonical()) {
			t.Errorf("the canonical form changes: %s, then %s", got.Canonical(), again.Canonical())
		}
		for _, f := range []*Filter{got, again} {
			f.Presence.Match("m.room.message", "@a:b", true)
			f.Room.Timeline.Match("m.room.message", "@a:b", true)
			f.Room.RoomEvents(f.Room.State, "!a:b")
			if _, err := f.EventFields.Append(nil, raw); err != nil {
				t.Errorf("trimming valid JSON: %v", err)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	raw := []byte(`{"room":{"timeline":{"limit":20,"unread_thread_notifications":true},"state":{"lazy_load_members":true}}}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	f, err := ParseRoomEvent([]byte(`{"types":["m.room.message","m.room.*","org.*"],"not_senders":["@spam:example.org"]}`))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		f.Match("m.room.member", "@bob:example.org", false)
	}
}

func BenchmarkFields(b *testing.B) {
	f := NewFields([]string{"type", "event_id", "sender", "content.body"})
	ev := []byte(`{"content":{"body":"hello there","msgtype":"m.text"},"event_id":"$143273582443PhrSn","origin_server_ts":1432735824653,"room_id":"!636q39766251:example.com","sender":"@bob:example.org","type":"m.room.message","unsigned":{"age":1234}}`)
	dst := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Append(dst, ev); err != nil {
			b.Fatal(err)
		}
	}
}
