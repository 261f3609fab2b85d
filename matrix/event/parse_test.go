package event

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
)

// pdu is an event as another server may send it: members with their JSON, to change one at a time.
type pdu map[string]string

func newPDU(t testing.TB, v *matrix.RoomVersion) pdu {
	t.Helper()
	p := pdu{}
	for k, m := range canonicaljson.Members(Federation(build(t, v, draft(v)))) {
		p[string(k)] = string(m)
	}
	return p
}

// with returns a copy with members replaced (or taken out, for an empty value) and the content hash made right.
func (p pdu) with(pairs ...string) pdu {
	c := pdu{}
	for k, v := range p {
		c[k] = v
	}
	for i := 0; i < len(pairs); i += 2 {
		if c[pairs[i]] = pairs[i+1]; pairs[i+1] == "" {
			delete(c, pairs[i])
		}
	}
	if object, err := canonicaljson.Canonicalize(c.json(), false); err == nil {
		hash := ContentHash(object)
		c["hashes"] = `{"sha256":"` + base64.RawStdEncoding.EncodeToString(hash[:]) + `"}`
	}
	return c
}

func (p pdu) json() []byte {
	b := []byte{'{'}
	for k, v := range p {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, "%q:%s", k, v)
	}
	return append(b, '}')
}

// refuse checks that Parse drops an event and with which errcode.
func refuse(t *testing.T, v *matrix.RoomVersion, code string, what string, raw []byte) {
	t.Helper()
	e, err := Parse(v, raw)
	m, ok := errors.AsType[*matrix.Error](err)
	if !ok || m.Code != code {
		t.Errorf("version %s, %s: Parse = %v, %v, want %s", v.ID, what, e != nil, err, code)
	}
}

func accept(t *testing.T, v *matrix.RoomVersion, what string, raw []byte) *Event {
	t.Helper()
	e, err := Parse(v, raw)
	if err != nil {
		t.Fatalf("version %s, %s: Parse: %v", v.ID, what, err)
	}
	return e
}

func everyVersion(t *testing.T, f func(t *testing.T, v *matrix.RoomVersion, p pdu)) {
	t.Helper()
	for _, id := range matrix.RoomVersions() {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			v := version(t, id)
			f(t, v, newPDU(t, v))
		})
	}
}

func TestJ1_DuplicateKeys(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v *matrix.RoomVersion, p pdu) {
		for _, dup := range []string{`"sender":"@evil:b.example",`, `"room_id":"!x:b.example",`, `"type":"m.x",`, `"unsigned":{},"unsigned":{},`} {
			raw := append([]byte("{"+dup), p.json()[1:]...)
			refuse(t, v, "M_BAD_JSON", dup, raw)
		}
		refuse(t, v, "M_BAD_JSON", "inside content", p.with("content", `{"body":"a","body":"b"}`).json())
	})
}

func TestJ2_OtherCaseIsInert(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v *matrix.RoomVersion, p pdu) {
		e := accept(t, v, "upper case", p.with("SENDER", `"@evil:b.example"`, "Content", `5`, "Room_id", `null`).json())
		if e.Sender != "@u:a.example" || e.HashMismatch || !strings.Contains(string(e.JSON), `"SENDER":"@evil:b.example"`) {
			t.Errorf("sender %s, mismatch %v, %s", e.Sender, e.HashMismatch, e.JSON)
		}
		refuse(t, v, "M_BAD_JSON", "sender only in upper case", p.with("sender", "", "Sender", `"@u:a.example"`).json())
	})
}

func TestJ3_NaN(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v *matrix.RoomVersion, p pdu) {
		for _, n := range []string{"NaN", "Infinity", "-Infinity"} {
			refuse(t, v, "M_NOT_JSON", n, p.with("content", `{"displayname":`+n+`}`).json())
		}
	})
}

func TestJ5_Numbers(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v *matrix.RoomVersion, p pdu) {
		for _, n := range []string{"1.0", "1e3", "-0", "1E+2", "9007199254740992"} {
			raw := p.with("content", `{"n":`+n+`}`).json()
			if v.StrictCanonicalJSON {
				refuse(t, v, "M_BAD_JSON", n, raw)
			} else if e := accept(t, v, n, raw); e.HashMismatch {
				t.Errorf("%s: the content hash does not match: %s", n, e.JSON)
			}
			if _, err := Build(v, Draft{Content: jsontext.Value(`{"n":` + n + `}`), Type: "m.x", EventID: "$x"}); err == nil {
				t.Errorf("Build accepts %s", n)
			}
		}
		if !v.StrictCanonicalJSON {
			if e := accept(t, v, "1.50", p.with("content", `{"n":1.50}`).json()); string(e.Content) != `{"n":1.50}` {
				t.Errorf("a float was rewritten: %s", e.Content)
			}
		}
	})
}

func TestJ6_Depth(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v *matrix.RoomVersion, p pdu) {
		for _, d := range []string{"-1", "1.5", `"5"`, "null", "", "9223372036854775808", "[]", "true"} {
			refuse(t, v, "M_BAD_JSON", "depth "+d, p.with("depth", d).json())
		}
		top := fmt.Sprint(v.MaxDepth)
		if e := accept(t, v, top, p.with("depth", top).json()); e.Depth != v.MaxDepth {
			t.Errorf("depth = %d", e.Depth)
		}
		if over := "9007199254740992"; v.StrictCanonicalJSON {
			refuse(t, v, "M_BAD_JSON", over, p.with("depth", over).json())
		}
		if e := build(t, v, func() Draft { d := draft(v); d.Depth = math.MaxInt64; return d }()); e.Depth != v.MaxDepth {
			t.Errorf("Build made depth %d", e.Depth)
		}
	})
}

func TestJ7_DeepNesting(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v *matrix.RoomVersion, p pdu) {
		refuse(t, v, "M_BAD_JSON", "nesting", p.with("content", strings.Repeat(`{"a":`, 9999)+"1"+strings.Repeat("}", 9999)).json())
		refuse(t, v, "M_BAD_JSON", "open nesting", []byte(strings.Repeat("[", 100000)))
	})
}

func TestJ9_LoneSurrogates(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v *matrix.RoomVersion, p pdu) {
		refuse(t, v, "M_BAD_JSON", "surrogate", p.with("content", `{"body":"\ud800"}`).json())
		refuse(t, v, "M_BAD_JSON", "surrogate key", p.with("content", `{"\udc00\ud800":1}`).json())
		refuse(t, v, "M_NOT_JSON", "bad UTF-8", p.with("content", "{\"body\":\"\xff\"}").json())
	})
}

func TestJ10_NUL(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v *matrix.RoomVersion, p pdu) {
		e := accept(t, v, "in the body", p.with("content", `{"body":"a\u0000b"}`).json())
		if s, ok := ContentString(e, "body"); !ok || s != "a\x00b" || e.HashMismatch {
			t.Errorf("body = %q", s)
		}
		refuse(t, v, "M_BAD_JSON", "in the sender", p.with("sender", `"@u\u0000:a.example"`).json())
		d := draft(v)
		d.StateKey = str("a\x00")
		if _, err := Build(v, d); err == nil {
			t.Error("Build accepts a state key with NUL")
		}
	})
}

func TestJ11_SizeLimit(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v *matrix.RoomVersion, p pdu) {
		p["signatures"] = `{"a.example":{"ed25519:1":"` + strings.Repeat("A", 86) + `"}}`
		base, err := canonicaljson.Canonicalize(p.with("content", `{"body":""}`).json(), true)
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{MaxSize - 1, MaxSize, MaxSize + 1} {
			raw := p.with("content", `{"body":"`+strings.Repeat("x", size-len(base))+`"}`,
				"unsigned", `{"age":5,"junk":"`+strings.Repeat("y", 1000)+`"}`).json()
			if size > MaxSize {
				refuse(t, v, "M_TOO_LARGE", fmt.Sprint(size), raw)
				continue
			}
			if e := accept(t, v, fmt.Sprint(size), raw); len(Federation(e)) != size {
				t.Errorf("Federation has %d bytes, want %d", len(Federation(e)), size)
			}
		}
		refuse(t, v, "M_TOO_LARGE", "no end", []byte(strings.Repeat(" ", maxRawSize+1)))
		for _, member := range []string{"type", "state_key"} {
			accept(t, v, member, p.with(member, `"`+strings.Repeat("k", 255)+`"`).json())
			refuse(t, v, "M_BAD_JSON", member, p.with(member, `"`+strings.Repeat("é", 128)+`"`).json())
		}
		refuse(t, v, "M_BAD_JSON", "sender", p.with("sender", `"@`+strings.Repeat("u", 250)+`:a.example"`).json())
	})
}

func TestJ11_OwnEventsLeaveRoomForTheSignature(t *testing.T) {
	t.Parallel()
	v := version(t, "12")
	d := draft(v)
	fits := func(n int) bool {
		d.Content = jsontext.Value(`{"body":"` + strings.Repeat("x", n) + `"}`)
		e, err := Build(v, d)
		if err != nil {
			if m, ok := errors.AsType[*matrix.Error](err); !ok || m.Status != 413 || m.Code != "M_TOO_LARGE" {
				t.Fatalf("Build with %d bytes: %v", n, err)
			}
			return false
		}
		signed := e.WithSignatures(jsontext.Value(`{"a.example":{"ed25519:` + strings.Repeat("k", 32) + `":"` + strings.Repeat("A", 86) + `"}}`))
		if got := len(Federation(signed)); got > MaxSize {
			t.Fatalf("Build made an event of %d bytes", got)
		}
		return true
	}
	low, high := 0, MaxSize
	for high-low > 1 {
		if mid := (low + high) / 2; fits(mid) {
			low = mid
		} else {
			high = mid
		}
	}
	e := build(t, v, func() Draft { d.Content = jsontext.Value(`{"body":"` + strings.Repeat("x", low) + `"}`); return d }())
	if spare := MaxSize - len(e.JSON); spare > 250 {
		t.Errorf("the largest event leaves %d bytes unused", spare)
	}
	for name, change := range map[string]func(*Draft){
		"type":      func(d *Draft) { d.Type = strings.Repeat("t", 256) },
		"state key": func(d *Draft) { d.StateKey = str(strings.Repeat("k", 256)) },
		"sender":    func(d *Draft) { d.Sender = matrix.UserID("@" + strings.Repeat("u", 250) + ":a.example") },
	} {
		d := draft(v)
		change(&d)
		if _, err := Build(v, d); err == nil || !strings.Contains(err.Error(), "M_TOO_LARGE") {
			t.Errorf("%s: Build: %v", name, err)
		}
	}
}

func TestJ13_Parents(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v *matrix.RoomVersion, p pdu) {
		refs := func(n int) string {
			ids := make([]string, n)
			for i := range ids {
				if ids[i] = fmt.Sprintf(`"$%043d"`, i); !v.EventIDHash {
					ids[i] = fmt.Sprintf(`["$%d:a.example",{"sha256":"x"}]`, i)
				}
			}
			return "[" + strings.Join(ids, ",") + "]"
		}
		e := accept(t, v, "20 and 10", p.with("prev_events", refs(20), "auth_events", refs(10)).json())
		if len(e.PrevEvents) != 20 || len(e.AuthEvents) != 10 {
			t.Errorf("%d and %d parents", len(e.PrevEvents), len(e.AuthEvents))
		}
		refuse(t, v, "M_BAD_JSON", "21", p.with("prev_events", refs(21)).json())
		refuse(t, v, "M_BAD_JSON", "11", p.with("auth_events", refs(11)).json())
		refuse(t, v, "M_BAD_JSON", "1000", p.with("prev_events", refs(1000)).json())
		refuse(t, v, "M_BAD_JSON", "none", p.with("prev_events", "[]").json())
		for _, bad := range []string{`[5]`, `["x"]`, `{}`, `"$x"`, `[null]`, `[["$x:a.example"]]`, `[["$x:a.example",5]]`, `[["$x:a.example",{},{}]]`, ``, `[[]]`} {
			refuse(t, v, "M_BAD_JSON", bad, p.with("prev_events", bad).json())
		}
		if v.EventIDHash {
			refuse(t, v, "M_BAD_JSON", "pairs", p.with("prev_events", `[["$x:a.example",{}]]`).json())
		} else {
			refuse(t, v, "M_BAD_JSON", "no pairs", p.with("prev_events", `["$x:a.example"]`).json())
		}
		many := p.with("prev_events", refs(100), "auth_events", refs(100)).json()
		if e, err := ParseWith(v, many, ParseOptions{AnyNumberOfParents: true}); err != nil || len(e.PrevEvents) != 100 {
			t.Errorf("backfill: %v", err)
		}
	})
}

func TestJ14_SelfReferences(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"1", "2"} {
		v := version(t, id)
		p := newPDU(t, v)
		for _, member := range []string{"prev_events", "auth_events"} {
			refuse(t, v, "M_BAD_JSON", member, p.with(member, `[["$own:a.example",{}]]`).json())
		}
	}
}

func TestJ15_ForgedEventID(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v *matrix.RoomVersion, p pdu) {
		e := accept(t, v, "forged", p.with("event_id", `"$forged:b.example"`).json())
		if !v.EventIDHash {
			if e.ID != "$forged:b.example" {
				t.Errorf("ID = %s", e.ID)
			}
			for _, bad := range []string{"", `5`, `"x"`, `"$x"`, `"$x:a b"`, `"$` + strings.Repeat("x", 250) + `:a.example"`} {
				refuse(t, v, "M_BAD_JSON", bad, p.with("event_id", bad).json())
			}
			return
		}
		if want := hashID(v, ReferenceHash(v, e.JSON)); e.ID != want || e.ID == "$forged:b.example" {
			t.Errorf("ID = %s, want %s", e.ID, want)
		}
		accept(t, v, "not even a string", p.with("event_id", `5`).json())
	})
}

func TestJ17_ContentHashMismatch(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v *matrix.RoomVersion, p pdu) {
		p = p.with("extra", `"top"`)
		whole := accept(t, v, "right", p.json())
		padded := strings.TrimSuffix(p["hashes"], `"}`) + `="}`
		p["hashes"] = padded
		if e := accept(t, v, "padded", p.json()); e.HashMismatch {
			t.Error("padding is refused")
		}
		for _, hashes := range []string{
			`{"sha256":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`, ``, `{}`, `{"sha256":"!"}`, `{"sha512":"AAAA"}`, `5`, `null`,
			`{"sha256":5}`, `{"sha256":""}`, `"x"`, `{"sha256":"` + strings.Repeat("A", 4000) + `"}`,
		} {
			if p["hashes"] = hashes; hashes == "" {
				delete(p, "hashes")
			}
			e := accept(t, v, hashes, p.json())
			if !e.HashMismatch || string(e.Content) != "{}" || strings.Contains(string(e.JSON), "quoted") || strings.Contains(string(e.JSON), "extra") {
				t.Errorf("%s: mismatch %v, %s", hashes, e.HashMismatch, e.JSON)
			}
			if e.Sender != whole.Sender || e.RoomID != whole.RoomID || len(e.PrevEvents) != len(whole.PrevEvents) {
				t.Errorf("%s: the redacted event differs: %+v", hashes, e)
			}
			if v.EventIDHash && hashID(v, ReferenceHash(v, e.JSON)) != e.ID {
				t.Errorf("%s: the ID is not that of the redacted event", hashes)
			}
		}
	})
}

func TestJ18_PoisonedUnsigned(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v *matrix.RoomVersion, p pdu) {
		p["unsigned"] = `{"age":1000000000000000000000000000000,"redacted_because":{"x":1.5},"prev_content":{},"membership":-0}`
		e := accept(t, v, "unsigned", p.json())
		if e.HashMismatch || strings.Contains(string(e.JSON)+string(Federation(e)), "unsigned") {
			t.Errorf("unsigned stays: %s", e.JSON)
		}
	})
}

func TestJ19_WrongTypes(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v *matrix.RoomVersion, p pdu) {
		for _, member := range []string{"content", "sender", "type", "room_id", "origin_server_ts", "state_key", "auth_events", "signatures", "depth", "prev_events"} {
			for _, bad := range []string{`[[]]`, `"x"`, `null`, `true`, `1.5`, `{"a":{}}`, `7`} {
				if member == "content" && bad[0] == '{' || member == "signatures" && bad[0] == '{' || bad == `"x"` && strings.HasSuffix("type state_key", member) ||
					member == "state_key" && bad == `"x"` || member == "type" && bad == `"x"` || bad == "7" && (member == "depth" || member == "origin_server_ts") {
					continue
				}
				refuse(t, v, "M_BAD_JSON", member+" "+bad, p.with(member, bad).json())
			}
		}
		for _, whole := range []string{`[]`, `null`, `"x"`, `7`} {
			refuse(t, v, "M_BAD_JSON", whole, []byte(whole))
		}
		for _, none := range []string{``, `{`, `{}}`, `x`} {
			refuse(t, v, "M_NOT_JSON", none, []byte(none))
		}
		refuse(t, v, "M_BAD_JSON", "{}", []byte(`{}`))
		member := accept(t, v, "member", p.with("type", `"m.room.member"`, "state_key", `"@u:a.example"`,
			"content", `{"membership":{},"displayname":7,"avatar_url":null,"is_direct":"true","reason":[],"third_party_invite":5}`).json())
		if m := Member(member); m.Membership != "" || Membership(member) != "" || m.DisplayName != "" || m.AvatarURL != "" || m.IsDirect || m.Reason != "" {
			t.Errorf("Member = %+v", m)
		}
		if s, ok := ContentString(member, "displayname"); ok {
			t.Errorf("displayname = %q", s)
		}
	})
}

func TestJ35_RedactionShape(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v *matrix.RoomVersion, p pdu) {
		target := `"$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB"`
		for value, want := range map[string]matrix.EventID{target: matrix.EventID(strings.Trim(target, `"`)), `5`: "", `"x"`: "", `null`: "", `{}`: ""} {
			top := accept(t, v, "top "+value, p.with("type", `"m.room.redaction"`, "redacts", value).json())
			inside := accept(t, v, "content "+value, p.with("type", `"m.room.redaction"`, "content", `{"redacts":`+value+`}`).json())
			right, wrong := top, inside
			if v.RedactsInContent {
				right, wrong = inside, top
			}
			if right.Redacts != want || wrong.Redacts != "" {
				t.Errorf("redacts %s: %q and %q", value, right.Redacts, wrong.Redacts)
			}
		}
		if e := accept(t, v, "another type", p.with("redacts", target).json()); e.Redacts != "" {
			t.Errorf("a message redacts %s", e.Redacts)
		}
	})
}

func TestA41_CreateCitedInVersion12(t *testing.T) {
	t.Parallel()
	everyVersion(t, func(t *testing.T, v *matrix.RoomVersion, p pdu) {
		if !v.RoomIDHash {
			refuse(t, v, "M_BAD_JSON", "room ID without a server", p.with("room_id", `"!AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"`).json())
			return
		}
		refuse(t, v, "M_BAD_JSON", "create cited", p.with("auth_events", `["$CAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]`).json())
		refuse(t, v, "M_BAD_JSON", "room ID with a server", p.with("room_id", `"!x:a.example"`).json())
		refuse(t, v, "M_BAD_JSON", "no room ID", p.with("room_id", "").json())
	})
}

func TestA42_CreateOfVersion12(t *testing.T) {
	t.Parallel()
	v := version(t, "12")
	d := Draft{Type: "m.room.create", StateKey: str(""), Sender: "@u:a.example", Content: jsontext.Value(`{"room_version":"12"}`), Depth: 1}
	e := build(t, v, d)
	if e.RoomID != "!"+matrix.RoomID(e.ID[1:]) || strings.Contains(string(e.JSON), "room_id") || CreateEventID(v, e.RoomID) != e.ID {
		t.Errorf("room %s of event %s: %s", e.RoomID, e.ID, e.JSON)
	}
	got := accept(t, v, "create", Federation(e))
	if diff(e.WithSignatures(jsontext.Value("{}")), got) != "" {
		t.Errorf("Parse = %+v, want %+v", got, e)
	}
	stored, err := ParseStored(v, e.JSON, e.ID, nil)
	if err != nil || stored.RoomID != e.RoomID {
		t.Errorf("ParseStored = %+v, %v", stored, err)
	}
	refuse(t, v, "M_BAD_JSON", "create with room_id", canonicaljson.Set(Federation(e), "room_id", []byte(`"!x:a.example"`)))
	d.RoomID = "!x:a.example"
	if _, err := Build(v, d); err == nil {
		t.Error("Build accepts a create event with a room ID")
	}
	if id := CreateEventID(version(t, "11"), "!x:a.example"); id != "" {
		t.Errorf("CreateEventID in version 11 = %s", id)
	}
}
