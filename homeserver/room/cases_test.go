package room_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/event"
	"hansa/matrix/signing"
	"hansa/storage"
	"hansa/storage/storagetest"
)

// forge makes a PDU of the far server that was changed before it was hashed and signed, so that nothing is wrong with it but the
// change. An empty value takes a member out. The text need not be an event any more.
func (f *far) forge(t testing.TB, version string, d event.Draft, members ...string) []byte {
	t.Helper()
	v, _ := matrix.FindRoomVersion(version)
	e, err := event.Build(v, d)
	if err != nil {
		t.Fatal(err)
	}
	object := bytes.Clone(e.JSON)
	for i := 0; i+1 < len(members); i += 2 {
		if object, _ = canonicaljson.Cut(object, members[i]); members[i+1] != "" {
			object = canonicaljson.Set(object, members[i], []byte(members[i+1]))
		}
	}
	if c, err := canonicaljson.Canonicalize(object, v.StrictCanonicalJSON); err == nil {
		object = c
	}
	hash := event.ContentHash(object)
	return f.sign(v, canonicaljson.Set(object, "hashes", []byte(`{"sha256":"`+base64.RawStdEncoding.EncodeToString(hash[:])+`"}`)))
}

// sign signs an event in JSON as it is, whatever its hashes say.
func (f *far) sign(v *matrix.RoomVersion, object []byte) []byte {
	signature := f.key.Sign(event.AppendRedactedJSON(nil, v, object))
	return canonicaljson.Set(object, "signatures", []byte(`{"`+string(f.name)+`":{"`+string(f.key.ID)+`":"`+signature+`"}}`))
}

func (k *kit) receiveJSON(id matrix.RoomID, raw []byte) (room.Received, error) {
	return k.rooms.Receive(context.Background(), room.Incoming{RoomID: id, JSON: raw})
}

// hello is a message of somebody on the room's head.
func (k *kit) hello(id matrix.RoomID, version string, sender matrix.UserID) event.Draft {
	d := k.draft(id, version, sender, "m.room.message", nil, map[string]any{"msgtype": "m.text", "body": "hello"})
	if d.OriginServerTS = 1_700_000_000_000; version == "1" || version == "2" {
		d.EventID = matrix.EventID(fmt.Sprintf("$hello%d:far.example", rand.Int64()))
	}
	return d
}

// dropped checks that an event is not taken in at all, and that it leaves nothing behind.
func (k *kit) dropped(id matrix.RoomID, what string, raw []byte) {
	k.t.Helper()
	head, events := k.head(id), len(k.timeline(id))
	before := k.db.Stats()
	r, err := k.receiveJSON(id, raw)
	if !errors.Is(err, room.ErrDropped) {
		k.t.Errorf("%s: %+v, %v; want ErrDropped", what, r, err)
	}
	after := k.db.Stats()
	if after.Commits != before.Commits || after.Reads != before.Reads {
		k.t.Errorf("%s: the database was asked %d times and written %d times for an event that is none", what, after.Reads-before.Reads, after.Commits-before.Commits)
	}
	if h := k.head(id); h.Name != head.Name || len(k.timeline(id)) != events {
		k.t.Errorf("%s: the room has moved to %s", what, h.Name)
	}
}

// accepted checks that an event is taken in and shown.
func (k *kit) accepted(id matrix.RoomID, what string, raw []byte) *storage.Event {
	k.t.Helper()
	r, err := k.receiveJSON(id, raw)
	if err != nil || r.Flags != 0 {
		k.t.Fatalf("%s: %+v, %v; want it accepted", what, r, err)
	}
	return k.event(r.EventID)
}

// goesOn checks that the room still takes messages of ours.
func (k *kit) goesOn(id matrix.RoomID) {
	k.t.Helper()
	if _, err := k.say(id, user("anna"), "on"); err != nil {
		k.t.Errorf("send afterwards: %v", err)
	}
}

// eachVersion runs a test in a room of anna's with fred of the far server in it.
func eachVersion(t *testing.T, versions []string, fn func(t *testing.T, k *kit, version string, id matrix.RoomID, fred matrix.UserID)) {
	t.Parallel()
	k := newKit(t, "sqlite", partner())
	for _, version := range versions {
		id := k.create(version, "public", user("anna"))
		fred, _ := k.fred2(id, version)
		k.accepted(id, "control", k.far.forge(t, version, k.hello(id, version, fred)))
		fn(t, k, version, id, fred)
		k.goesOn(id)
	}
}

func TestJ1_J3_J5_J7_J9_J11_J19_MalformedPDUsAreDropped(t *testing.T) {
	eachVersion(t, []string{"1", "6", "10", "12"}, func(t *testing.T, k *kit, version string, id matrix.RoomID, fred matrix.UserID) {
		good := string(k.far.forge(t, version, k.hello(id, version, fred)))
		in := func(content string) []byte {
			return k.far.forge(t, version, k.hello(id, version, fred), "content", content)
		}
		for what, raw := range map[string][]byte{
			"J1 two senders":      []byte(`{"sender":"@eve:far.example",` + good[1:]),
			"J1 two rooms":        []byte(`{"room_id":"!x:far.example",` + good[1:]),
			"J1 two bodies":       []byte(strings.Replace(good, `"content":{`, `"content":{"body":"x",`, 1)),
			"J3 NaN":              []byte(strings.Replace(good, `"hello"`, `NaN`, 1)),
			"J7 deep":             []byte(strings.Replace(good, `"hello"`, strings.Repeat(`{"a":`, 9999)+"1"+strings.Repeat("}", 9999), 1)),
			"J7 open":             []byte(strings.Repeat("[", 100_000)),
			"J9 surrogate":        []byte(strings.Replace(good, `"hello"`, `"\ud800"`, 1)),
			"J9 bad UTF-8":        []byte(strings.Replace(good, `hello`, "\xff", 1)),
			"J11 too large":       in(`{"body":"` + strings.Repeat("x", 66_000) + `"}`),
			"J19 content a list":  in(`[]`),
			"J19 content a text":  in(`"x"`),
			"J19 content null":    in(`null`),
			"J19 sender a number": k.far.forge(t, version, k.hello(id, version, fred), "sender", "7"),
			"J19 type a list":     k.far.forge(t, version, k.hello(id, version, fred), "type", "[]"),
			"J19 no object":       []byte(`[]`),
			"J19 nothing":         nil,
		} {
			k.dropped(id, version+" "+what, raw)
		}
		for _, n := range []string{"1.0", "1e3", "-0", "1E+2", "9007199254740992"} {
			if version == "1" { // as it was then: kept as it stands, because the hash covers it
				if e := k.accepted(id, n, in(`{"n":`+n+`}`)); e.HashMismatch {
					t.Errorf("version 1: %s was rewritten: %s", n, e.Content)
				}
				continue
			}
			k.dropped(id, version+" J5 "+n, in(`{"n":`+n+`}`))
		}
	})
}

// Keys in another case and NUL in text are data like any other.
func TestJ2_J10_InertData(t *testing.T) {
	eachVersion(t, []string{"1", "6", "12"}, func(t *testing.T, k *kit, version string, id matrix.RoomID, fred matrix.UserID) {
		e := k.accepted(id, "other case", k.far.forge(t, version, k.hello(id, version, fred), "SENDER", `"@anna:acme.example"`, "Type", `"m.room.name"`, "State_key", `""`,
			"content", `{"Body":"x","body":"a\u0000b"}`))
		if e.Sender != fred || e.StateKey != nil || e.Type != "m.room.message" || string(e.Content) != `{"Body":"x","body":"a\u0000b"}` {
			t.Errorf("version %s: %s", version, e.JSON)
		}
		r, err := k.receiveJSON(id, k.far.forge(t, version, k.draft1(id, version, fred, "m.room.member", string(fred), `{"Membership":"ban","membership":"join"}`)))
		if err != nil || r.Flags != 0 {
			t.Errorf("version %s: membership in another case: %+v, %v", version, r, err)
		}
	})
}

// draft1 is a state event with any content.
func (k *kit) draft1(id matrix.RoomID, version string, sender matrix.UserID, typ, key, content string) event.Draft {
	d := k.draft(id, version, sender, typ, &key, map[string]any{})
	d.Content = []byte(content)
	d.AuthEvents = nil
	v, _ := matrix.FindRoomVersion(version)
	for _, need := range auth.Needed(v, typ, &key, sender, d.Content) {
		err := k.db.Read(k.ctx(), func(tx *storage.Tx) error {
			e, err := tx.LoadStateEvent(id, need)
			if err == nil {
				d.AuthEvents = append(d.AuthEvents, e.ID)
			} else if errors.Is(err, storage.ErrNotFound) {
				err = nil
			}
			return err
		})
		k.must(err)
	}
	if !v.EventIDHash {
		d.EventID = matrix.EventID(fmt.Sprintf("$state%d:far.example", rand.Int64()))
	}
	return d
}

// Depth says nothing: malformed depths are dropped, extreme ones change no order.
func TestJ6_Depth(t *testing.T) {
	eachVersion(t, []string{"1", "6", "10", "12"}, func(t *testing.T, k *kit, version string, id matrix.RoomID, fred matrix.UserID) {
		v, _ := matrix.FindRoomVersion(version)
		for _, depth := range []string{"-1", "1.5", `"5"`, "null", "", "9223372036854775808", "[]"} {
			k.dropped(id, version+" depth "+depth, k.far.forge(t, version, k.hello(id, version, fred), "depth", depth))
		}
		if v.StrictCanonicalJSON {
			k.dropped(id, version+" depth 2^53", k.far.forge(t, version, k.hello(id, version, fred), "depth", "9007199254740992"))
		}
		var want []matrix.EventID
		for _, depth := range []string{fmt.Sprint(v.MaxDepth), "0", fmt.Sprint(v.MaxDepth), "1"} {
			want = append(want, k.accepted(id, "depth "+depth, k.far.forge(t, version, k.hello(id, version, fred), "depth", depth)).ID)
			sent, err := k.say(id, user("anna"), "mine")
			k.must(err)
			if e := k.event(sent.EventID); e.Depth > v.MaxDepth || e.Depth < 1 {
				t.Errorf("version %s: an own event has depth %d", version, e.Depth)
			}
			want = append(want, sent.EventID)
		}
		list := k.timeline(id)
		for i, e := range list[len(list)-len(want):] {
			if e.ID != want[i] {
				t.Errorf("version %s: event %d of the timeline is out of order", version, i)
			}
		}
	})
}

// Lists of parents that are too long or empty are not even looked up.
func TestJ13_Parents(t *testing.T) {
	eachVersion(t, []string{"1", "4", "12"}, func(t *testing.T, k *kit, version string, id matrix.RoomID, fred matrix.UserID) {
		v, _ := matrix.FindRoomVersion(version)
		refs := func(n int) string {
			list := make([]string, n)
			for i := range list {
				if list[i] = fmt.Sprintf(`"$%043d"`, i); !v.EventIDHash {
					list[i] = fmt.Sprintf(`["$%d:far.example",{}]`, i)
				}
			}
			return "[" + strings.Join(list, ",") + "]"
		}
		for what, members := range map[string][2]string{"21 parents": {"prev_events", refs(21)}, "11 auth events": {"auth_events", refs(11)}, "no parents": {"prev_events", "[]"},
			"1,000 parents": {"prev_events", refs(1000)}, "parents of a wrong type": {"prev_events", `{"$x":1}`}} {
			k.dropped(id, version+" "+what, k.far.forge(t, version, k.hello(id, version, fred), members[0], members[1]))
		}
	})
}

// A parent in another room is none: the state of one room never comes into another.
func TestJ13_ParentsOfAnotherRoom(t *testing.T) {
	eachVersion(t, []string{"1", "6", "12"}, func(t *testing.T, k *kit, version string, id matrix.RoomID, fred matrix.UserID) {
		other := k.create(version, "public", user("anna"))
		foreign := k.mustSay(other)
		before := k.head(id)
		for _, parents := range [][]matrix.EventID{{foreign}, {foreign, before.Extremities[0]}, {k.stateID(other, "m.room.create", "")}} {
			d := k.hello(id, version, fred)
			d.PrevEvents = parents
			if r, err := k.receiveJSON(id, k.far.forge(t, version, d)); !errors.Is(err, room.ErrDropped) {
				t.Errorf("version %s: parents in another room: %+v, %v; want ErrDropped", version, r, err)
			}
		}
		d := k.hello(id, version, fred)
		d.AuthEvents = append(d.AuthEvents[:len(d.AuthEvents)-1], k.stateID(other, "m.room.power_levels", ""))
		if r, err := k.receiveJSON(id, k.far.forge(t, version, d)); err == nil && r.Flags&storage.Rejected == 0 {
			t.Errorf("version %s: auth events of another room: %+v; want it rejected", version, r)
		}
		if h := k.head(id); !slices.Equal(h.Extremities, before.Extremities) || h.StateRoot != before.StateRoot {
			t.Errorf("version %s: the room has changed", version)
		}
	})
}

// The same parent twice is one parent; events that name one another are waited for, once.
func TestJ14_DuplicateAndCyclicReferences(t *testing.T) {
	eachVersion(t, []string{"1", "2", "6", "12"}, func(t *testing.T, k *kit, version string, id matrix.RoomID, fred matrix.UserID) {
		d := k.hello(id, version, fred)
		d.PrevEvents = append(d.PrevEvents, d.PrevEvents[0], d.PrevEvents[0])
		e := k.accepted(id, "three times one parent", k.far.forge(t, version, d))
		if h := k.head(id); len(h.Extremities) != 1 || h.Extremities[0] != e.ID {
			t.Errorf("version %s: extremities %v", version, h.Extremities)
		}
		v, _ := matrix.FindRoomVersion(version)
		if v.EventIDHash {
			return
		}
		a, b := k.hello(id, version, fred), k.hello(id, version, fred)
		a.PrevEvents, b.PrevEvents = []matrix.EventID{b.EventID}, []matrix.EventID{a.EventID}
		for _, d := range []event.Draft{a, b, a} {
			var m *room.MissingError
			if _, err := k.receiveJSON(id, k.far.forge(t, version, d)); !errors.As(err, &m) || len(m.Parents) != 1 {
				t.Errorf("version %s: a cycle of parents: %v, want MissingError", version, err)
			}
		}
		a = k.hello(id, version, fred)
		a.AuthEvents = append(a.AuthEvents, a.EventID)
		k.dropped(id, "authorised by itself", k.far.forge(t, version, a))
	})
}

// The ID of an event is its hash, whatever it says itself.
func TestJ15_ForgedEventID(t *testing.T) {
	eachVersion(t, []string{"3", "6", "12"}, func(t *testing.T, k *kit, version string, id matrix.RoomID, fred matrix.UserID) {
		known, err := k.say(id, user("anna"), "known")
		k.must(err)
		for _, forged := range []string{`"$forged:far.example"`, `"` + string(known.EventID) + `"`, `7`, `null`} {
			e := k.accepted(id, forged, k.far.forge(t, version, k.hello(id, version, fred), "event_id", forged))
			if e.ID == known.EventID || e.ID == "$forged:far.example" || len(e.ID) != 44 {
				t.Errorf("version %s: an event that says it is %s is %s", version, forged, e.ID)
			}
		}
		if e := k.event(known.EventID); e.Sender != user("anna") || !strings.Contains(string(e.Content), "known") {
			t.Errorf("version %s: another event was replaced: %s", version, e.JSON)
		}
	})
}

// An event whose content is not what was hashed is taken in redacted, and nothing of what was tampered with is kept.
func TestJ17_ContentHashMismatch(t *testing.T) {
	eachVersion(t, []string{"1", "6", "11", "12"}, func(t *testing.T, k *kit, version string, id matrix.RoomID, fred matrix.UserID) {
		v, _ := matrix.FindRoomVersion(version)
		for _, hashes := range []string{`{"sha256":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`, ``, `{}`, `{"sha256":"!"}`, `{"sha512":"AAAA"}`, `{"sha256":7}`, `null`} {
			object, _ := canonicaljson.Cut(k.far.forge(t, version, k.hello(id, version, fred), "content", `{"msgtype":"m.text","body":"tampered"}`, "extra", `"tampered"`), "hashes")
			if object, _ = canonicaljson.Cut(object, "signatures"); hashes != "" {
				object = canonicaljson.Set(object, "hashes", []byte(hashes))
			}
			e := k.accepted(id, "hashes "+hashes, k.far.sign(v, object))
			if string(e.Content) != "{}" || strings.Contains(string(e.JSON), "tampered") {
				t.Errorf("version %s, hashes %s: stored is %s", version, hashes, e.JSON)
			}
		}
	})
}

// What a stranger writes into unsigned is not even kept.
func TestJ18_PoisonedUnsigned(t *testing.T) {
	eachVersion(t, []string{"1", "6", "12"}, func(t *testing.T, k *kit, version string, id matrix.RoomID, fred matrix.UserID) {
		for _, unsigned := range []string{
			`{"age":1000000000000000000000000000000,"redacted_because":{"sender":"@anna:acme.example"},"replaces_state":"$x","prev_content":{"a":1.5},"transaction_id":"t1","membership":"ban"}`,
			`{"age":1e400}`, `{"age":-0}`, `7`, `null`, `[]`,
		} {
			e := k.accepted(id, unsigned, k.far.forge(t, version, k.hello(id, version, fred), "unsigned", unsigned))
			if strings.Contains(string(e.JSON), "unsigned") || e.TxnID != "" || e.RedactedBy != "" || e.Replaces != "" || e.HashMismatch {
				t.Errorf("version %s: unsigned %s: stored is %s", version, unsigned, e.JSON)
			}
		}
	})
}

// asked is a keyring that notes for which moment it is asked.
type asked struct {
	*far
	at []int64
}

func (a *asked) PublicKey(ctx context.Context, server matrix.ServerName, id signing.KeyID, at int64) (signing.PublicKey, error) {
	a.at = append(a.at, at)
	return a.far.PublicKey(ctx, server, id, at)
}

// Collect implements room.Keyring.
func (a *asked) Collect(ctx context.Context, _ matrix.ServerName, _ map[matrix.ServerName]map[signing.KeyID]int64) func(matrix.ServerName, signing.KeyID, int64) (signing.PublicKey, error) {
	return func(server matrix.ServerName, id signing.KeyID, at int64) (signing.PublicKey, error) {
		return a.PublicKey(ctx, server, id, at)
	}
}

// The time that a server writes into its events decides which key counts, and nothing else.
func TestJ30_Timestamps(t *testing.T) {
	eachVersion(t, []string{"6", "12"}, func(t *testing.T, k *kit, version string, id matrix.RoomID, fred matrix.UserID) {
		keys := &asked{far: k.far}
		k.rooms = room.New(room.Deps{DB: k.db, Stream: k.stream, Policy: k.engine, Parties: k.facts, Keys: k.keys, Keyring: keys, Log: storagetest.Quiet()})
		var want []matrix.EventID
		now := time.Now().UnixMilli()
		for _, ts := range []int64{0, 8_640_000_000_000_000, 1, 9007199254740991, -5} {
			d := k.hello(id, version, fred)
			d.OriginServerTS = ts
			keys.at = nil
			e := k.accepted(id, fmt.Sprint("dated ", ts), k.far.forge(t, version, d))
			if len(keys.at) == 0 || keys.at[0] != ts {
				t.Errorf("version %s: the key was looked for at %v, want %d", version, keys.at, ts)
			}
			if e.OriginServerTS != ts || e.ReceivedTS < now-1000 || e.ReceivedTS > now+600_000 {
				t.Errorf("version %s: dated %d, received %d", version, e.OriginServerTS, e.ReceivedTS)
			}
			want = append(want, e.ID)
			sent, err := k.say(id, user("anna"), "mine")
			k.must(err)
			want = append(want, sent.EventID)
		}
		list := k.timeline(id)
		for i, e := range list[len(list)-len(want):] {
			if e.ID != want[i] {
				t.Errorf("version %s: event %d of the timeline is out of order", version, i)
			}
		}
		k.restart()
	})
}

// Redactions that are malformed, reach too far or come too early.
func TestJ35_RedactionShape(t *testing.T) {
	eachVersion(t, []string{"1", "6", "11", "12"}, func(t *testing.T, k *kit, version string, id matrix.RoomID, fred matrix.UserID) {
		v, _ := matrix.FindRoomVersion(version)
		redaction := func(sender matrix.UserID, target matrix.EventID) event.Draft {
			d := k.draft(id, version, sender, "m.room.redaction", nil, map[string]any{})
			if d.Redacts = target; !v.EventIDHash {
				d.EventID = matrix.EventID(fmt.Sprintf("$redaction%d:far.example", rand.Int64()))
			}
			return d
		}
		where := "redacts"
		shape := func(value string) []string {
			if v.RedactsInContent {
				return []string{"content", `{"redacts":` + value + `}`}
			}
			return []string{where, value}
		}
		for _, value := range []string{`5`, `null`, `"x"`, `{}`, `[]`} {
			if r, err := k.receiveJSON(id, k.far.forge(t, version, redaction(fred, ""), shape(value)...)); err != nil || r.Flags&^storage.Rejected != 0 {
				t.Errorf("version %s: redacts %s: %+v, %v", version, value, r, err)
			}
		}
		other := k.create(version, "public", user("anna"))
		for what, target := range map[string]matrix.EventID{"another room": k.mustSay(other), "anna's without power": k.mustSay(id), "the create event": k.stateID(id, "m.room.create", ""),
			"never seen": "$" + matrix.EventID(make43('z'))} {
			if _, err := k.receiveJSON(id, k.far.forge(t, version, redaction(fred, target))); err != nil {
				t.Errorf("version %s: redaction of %s: %v", version, what, err)
			}
			if what != "never seen" && k.event(target).RedactedBy != "" {
				t.Errorf("version %s: %s was redacted", version, what)
			}
		}
		// A redaction that comes before its target takes effect when the target comes.
		d := k.hello(id, version, fred)
		late := k.far.forge(t, version, d)
		target, err := event.Parse(v, late)
		k.must(err)
		by := k.accepted(id, "redaction before its target", k.far.forge(t, version, redaction(fred, target.ID)))
		if e := k.accepted(id, "target after its redaction", late); string(e.Content) != "{}" || e.RedactedBy != by.ID {
			t.Errorf("version %s: the target is %s, redacted by %q", version, e.JSON, e.RedactedBy)
		}
		if v.EventIDHash {
			return
		}
		self, one, two := redaction(fred, ""), redaction(fred, ""), redaction(fred, "")
		self.Redacts, one.Redacts, two.Redacts = self.EventID, two.EventID, one.EventID
		for _, d := range []event.Draft{self, one, two} {
			k.accepted(id, "redactions of one another", k.far.forge(t, version, d))
		}
		if e := k.event(self.EventID); e.RedactedBy != "" {
			t.Errorf("version %s: an event redacted itself", version)
		}
	})
}

func (k *kit) mustSay(id matrix.RoomID) matrix.EventID {
	k.t.Helper()
	sent, err := k.say(id, user("anna"), "still here")
	k.must(err)
	return sent.EventID
}
