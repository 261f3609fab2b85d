package auth

import (
	"errors"
	"strconv"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/event"
)

// The people of the test rooms. Alice made the room; the moderator has level 50, the member 0.
const (
	alice   = matrix.UserID("@alice:a.example")
	mod     = matrix.UserID("@mod:b.example")
	peer    = matrix.UserID("@peer:b.example") // another moderator
	user    = matrix.UserID("@user:b.example")
	invited = matrix.UserID("@invited:c.example")
	banned  = matrix.UserID("@banned:c.example")
	knocker = matrix.UserID("@knocker:c.example")
	gone    = matrix.UserID("@gone:c.example")
	nobody  = matrix.UserID("@nobody:c.example")
)

// world is one room and its state.
type world struct {
	t     testing.TB
	v     *matrix.RoomVersion
	n     int
	room  matrix.RoomID
	state map[event.StateKey]*event.Event
	count int
	// signers are the servers whose signatures count as valid.
	signers map[matrix.ServerName]bool
}

func version(t testing.TB, id string) *matrix.RoomVersion {
	t.Helper()
	v, ok := matrix.FindRoomVersion(id)
	if !ok {
		t.Fatalf("room version %s is unknown", id)
	}
	return v
}

func str(s string) *string { return &s }

func canonical(t testing.TB, v *matrix.RoomVersion, s string) jsontext.Value {
	t.Helper()
	b, err := canonicaljson.Canonicalize([]byte(s), v.StrictCanonicalJSON)
	if err != nil {
		t.Fatalf("content %s: %v", s, err)
	}
	return b
}

// event makes an event without a signature or hash. The previous event is made up.
func (w *world) event(typ string, key *string, sender matrix.UserID, content string) *event.Event {
	w.t.Helper()
	w.count++
	return &event.Event{
		Version: w.v, ID: matrix.EventID("$" + strconv.Itoa(w.count) + ":" + string(sender.Server())), RoomID: w.room,
		Type: typ, StateKey: key, Sender: sender, Content: canonical(w.t, w.v, content),
		PrevEvents: []matrix.EventID{"$before:a.example"}, OriginServerTS: int64(w.count), Depth: int64(w.count),
	}
}

func (w *world) set(ev *event.Event) *event.Event {
	w.state[ev.Key()] = ev
	return ev
}

func (w *world) member(sender, target matrix.UserID, content string) *event.Event {
	w.t.Helper()
	return w.event(TypeMember, str(string(target)), sender, content)
}

// empty is a room with nothing but its create event.
func empty(t testing.TB, id string) *world {
	t.Helper()
	n, err := strconv.Atoi(id)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, v: version(t, id), n: n, room: "!r:a.example",
		state: make(map[event.StateKey]*event.Event), signers: make(map[matrix.ServerName]bool),
	}
	w.set(w.create(`{"creator":"` + string(alice) + `","room_version":"` + id + `"}`))
	return w
}

// create makes a create event that fits the version.
func (w *world) create(content string) *event.Event {
	w.t.Helper()
	ev := w.event(TypeCreate, str(""), alice, content)
	ev.PrevEvents = nil
	if w.v.RoomIDHash {
		ev.ID = "$create"
		w.room = "!create"
		ev.RoomID = w.room
	}
	return ev
}

// power is the content of power levels; Alice is listed where the version allows it.
func (w *world) power(rest string) string {
	if w.v.PrivilegedCreators {
		return `{"users":{"` + string(mod) + `":50,"` + string(peer) + `":50},` + rest + `}`
	}
	return `{"users":{"` + string(alice) + `":100,"` + string(mod) + `":50,"` + string(peer) + `":50},` + rest + `}`
}

// furnished is a public room with all the people in it.
func furnished(t testing.TB, id string) *world {
	t.Helper()
	w := empty(t, id)
	for _, u := range []matrix.UserID{alice, mod, peer, user} {
		w.set(w.member(u, u, `{"membership":"join"}`))
	}
	w.set(w.member(alice, invited, `{"membership":"invite"}`))
	w.set(w.member(alice, banned, `{"membership":"ban"}`))
	w.set(w.member(gone, gone, `{"membership":"leave"}`))
	if w.v.Knock {
		w.set(w.member(knocker, knocker, `{"membership":"knock"}`))
	}
	w.set(w.event(TypePowerLevels, str(""), alice, w.power(`"invite":50,"events":{"m.room.name":30},"notifications":{"room":50}`)))
	w.joinRule(JoinRulePublic)
	return w
}

func (w *world) joinRule(rule string) {
	w.set(w.event(TypeJoinRules, str(""), alice, `{"join_rule":"`+rule+`"}`))
}

func (w *world) find(typ, key string) *event.Event {
	return w.state[event.StateKey{Type: typ, Key: key}]
}

func (w *world) rules() *Rules {
	w.t.Helper()
	r, err := NewRules(w.find(TypeCreate, ""), w.find(TypePowerLevels, ""), w.find(TypeJoinRules, ""))
	if err != nil {
		w.t.Fatalf("NewRules: %v", err)
	}
	return r
}

// verdict is the rule that denies the event, empty if it is allowed.
func (w *world) verdict(ev *event.Event) string {
	w.t.Helper()
	return rule(w.t, Check(ev, w.find, func(s matrix.ServerName) bool { return w.signers[s] }))
}

func rule(t testing.TB, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var d *Denied
	if !errors.As(err, &d) {
		t.Fatalf("error %v is no *Denied", err)
	}
	if d.Reason == "" {
		t.Errorf("rule %s gives no reason", d.Rule)
	}
	return d.Rule
}

func (w *world) want(name string, ev *event.Event, rule string) {
	w.t.Helper()
	if got := w.verdict(ev); got != rule {
		w.t.Errorf("version %s: %s: denied by %q, want %q", w.v.ID, name, got, rule)
	}
}

// everyVersion runs a test for the versions from first to last.
func everyVersion(t *testing.T, first, last int, test func(t *testing.T, id string)) {
	for _, id := range matrix.RoomVersions() {
		if n, _ := strconv.Atoi(id); n >= first && n <= last {
			t.Run("v"+id, func(t *testing.T) {
				t.Parallel()
				test(t, id)
			})
		}
	}
}

// redacted is the event with the content that a redaction leaves.
func redacted(t testing.TB, ev *event.Event) *event.Event {
	t.Helper()
	whole := []byte(`{"content":` + string(ev.Content) + `,"type":"` + ev.Type + `"}`)
	content, ok := canonicaljson.Find(event.AppendRedactedJSON(nil, ev.Version, whole), "content")
	if !ok {
		t.Fatalf("redaction of %s has no content", whole)
	}
	c := *ev
	c.Content = content
	return &c
}
