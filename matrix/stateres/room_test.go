package stateres

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/event"
)

// room is a whole room in memory: all events, and the state after each.
type room struct {
	t      testing.TB
	v      *matrix.RoomVersion
	create *event.Event
	events map[matrix.EventID]*event.Event
	after  map[matrix.EventID]stateMap
	ranks  map[matrix.EventID]Node
	ref    *reference
	clock  int64
	// named is how tests call events.
	named map[string]*event.Event
}

const alice = matrix.UserID("@alice:a.example")

func newRoom(t testing.TB, version string) *room {
	t.Helper()
	v, ok := matrix.FindRoomVersion(version)
	if !ok {
		t.Fatalf("room version %s is unknown", version)
	}
	r := &room{
		t: t, v: v, events: make(map[matrix.EventID]*event.Event), after: make(map[matrix.EventID]stateMap),
		ranks: make(map[matrix.EventID]Node), named: make(map[string]*event.Event),
	}
	r.create = r.draft(auth.TypeCreate, str(""), alice, `{"creator":"`+string(alice)+`","room_version":"`+version+`"}`, 0)
	r.create.PrevEvents = nil
	if v.RoomIDHash {
		r.create.RoomID = matrix.RoomID("!" + r.create.ID[1:])
	}
	r.ref = &reference{create: r.create, events: r.events, rejected: idSet{}, chains: make(map[matrix.EventID]idSet)}
	r.put(r.create, stateMap{})
	return r
}

func str(s string) *string { return &s }

// draft makes an event whose ID depends on what is in it and on how many there are.
func (r *room) draft(typ string, key *string, sender matrix.UserID, content string, ts int64) *event.Event {
	r.t.Helper()
	c, err := canonicaljson.Canonicalize([]byte(content), true)
	if err != nil {
		r.t.Fatalf("content %s: %v", content, err)
	}
	h := sha256.Sum256([]byte(fmt.Sprint(len(r.events), typ, sender, content)))
	id := "$" + base64.RawURLEncoding.EncodeToString(h[:])
	if !r.v.EventIDHash {
		id += ":" + string(sender.Server())
	}
	ev := &event.Event{
		Version: r.v, ID: matrix.EventID(id), RoomID: "!r:a.example", Type: typ, StateKey: key, Sender: sender, Content: c,
		OriginServerTS: ts,
	}
	if r.create != nil {
		ev.RoomID = r.create.RoomID
	}
	return ev
}

// put stores an event with the state after it.
func (r *room) put(ev *event.Event, before stateMap) {
	r.events[ev.ID] = ev
	n := Node{AuthEvents: ev.AuthEvents}
	for _, a := range ev.AuthEvents {
		n.Rank = max(n.Rank, r.ranks[a].Rank+1)
	}
	r.ranks[ev.ID] = n
	after := maps.Clone(before)
	if ev.IsState() {
		after[ev.Key()] = ev.ID
	}
	r.after[ev.ID] = after
}

// cite sets the auth events of a draft from a state.
func cite(ev *event.Event, state stateMap) {
	ev.AuthEvents = nil
	for _, k := range auth.NeededFor(ev) {
		if id := state[k]; id != "" {
			ev.AuthEvents = append(ev.AuthEvents, id)
		}
	}
}

// send appends an event after others, with the auth events that the state gives, and remembers it under a name. It must
// be allowed.
func (r *room) send(name string, prev []string, sender matrix.UserID, typ, key, content string) *event.Event {
	r.t.Helper()
	r.clock++
	ev := r.draft(typ, str(key), sender, content, r.clock)
	var states []stateMap
	for _, p := range prev {
		before := r.named[p]
		if before == nil {
			before = r.create
		}
		ev.PrevEvents = append(ev.PrevEvents, before.ID)
		ev.Depth = max(ev.Depth, before.Depth+1)
		states = append(states, r.after[before.ID])
	}
	state := r.resolve(states)
	cite(ev, state)
	if err := r.allowed(ev, state); err != nil {
		r.t.Fatalf("%s: %v", name, err)
	}
	r.put(ev, state)
	r.named[name] = ev
	return ev
}

func (r *room) allowed(ev *event.Event, state stateMap) error {
	return auth.Check(ev, func(typ, key string) *event.Event {
		if typ == auth.TypeCreate && key == "" {
			return r.create
		}
		return r.events[state[event.StateKey{Type: typ, Key: key}]]
	}, nil)
}

func (r *room) member(name, prev string, sender, target matrix.UserID, membership string) {
	r.t.Helper()
	r.send(name, []string{prev}, sender, auth.TypeMember, string(target), `{"membership":"`+membership+`"}`)
}

// levels is the content of power levels that list these users; Alice has 100 where the version allows saying so.
func (r *room) levels(users ...any) string {
	var list []string
	if !r.v.PrivilegedCreators {
		list = append(list, `"`+string(alice)+`":100`)
	}
	for i := 0; i < len(users); i += 2 {
		list = append(list, fmt.Sprintf(`"%s":%d`, users[i], users[i+1]))
	}
	return `{"users":{` + strings.Join(list, ",") + `}}`
}

func (r *room) load(ids []matrix.EventID) (map[matrix.EventID]*event.Event, error) {
	found := make(map[matrix.EventID]*event.Event, len(ids))
	for _, id := range ids {
		if ev := r.events[id]; ev != nil {
			found[id] = ev
		}
	}
	return found, nil
}

func (r *room) graph(ids []matrix.EventID) (map[matrix.EventID]Node, error) {
	found := make(map[matrix.EventID]Node, len(ids))
	for _, id := range ids {
		if n, ok := r.ranks[id]; ok {
			found[id] = n
		}
	}
	return found, nil
}

func (r *room) resolve(states []stateMap) stateMap {
	r.t.Helper()
	if len(states) == 1 {
		return maps.Clone(states[0])
	}
	got, err := ResolveStates(r.create, states, r.graph, r.load, func(id matrix.EventID) bool { return r.ref.rejected[id] })
	if err != nil {
		r.t.Fatalf("ResolveStates: %v", err)
	}
	return got
}

// state builds a state map of named events.
func (r *room) state(names ...string) stateMap {
	s := stateMap{r.create.Key(): r.create.ID}
	for _, n := range names {
		s[r.named[n].Key()] = r.named[n].ID
	}
	return s
}

// name is what the tests call an event.
func (r *room) name(id matrix.EventID) string {
	for n, ev := range r.named {
		if ev.ID == id {
			return n
		}
	}
	if id == r.create.ID {
		return "create"
	}
	return string(id)
}

// names lists the events of a state by name, sorted.
func (r *room) names(s stateMap) []string {
	list := make([]string, 0, len(s))
	for _, id := range s {
		list = append(list, r.name(id))
	}
	slices.Sort(list)
	return list
}

// expect resolves states and compares the result with named events; the create event is implied. The reference must agree.
func (r *room) expect(states []stateMap, want ...string) {
	r.t.Helper()
	want = append(want, "create")
	slices.Sort(want)
	if got := r.names(r.resolve(states)); !slices.Equal(got, want) {
		r.t.Errorf("version %s resolves to %v, want %v", r.v.ID, got, want)
	}
	if got := r.names(r.ref.resolve(states)); !slices.Equal(got, want) {
		r.t.Errorf("version %s: the reference resolves to %v, want %v", r.v.ID, got, want)
	}
}

func everyVersion(t *testing.T, versions []string, test func(t *testing.T, r *room)) {
	for _, id := range versions {
		t.Run("v"+id, func(t *testing.T) {
			t.Parallel()
			test(t, newRoom(t, id))
		})
	}
}

func fromV2() []string { return matrix.RoomVersions()[1:] }
