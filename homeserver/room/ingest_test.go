package room_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage"
)

// distant is what the far server answers: it has events, and what a test puts in place of its answers.
type distant struct {
	mu     sync.Mutex
	events map[matrix.EventID]*event.Event
	calls  map[string]int
	// missing and state take the place of an honest answer.
	missing func(latest []matrix.EventID) [][]byte
	state   func(at matrix.EventID) (state, auth []matrix.EventID)
}

func (k *kit) meet() *distant {
	d := &distant{events: map[matrix.EventID]*event.Event{}, calls: map[string]int{}}
	k.remote = d
	k.restart()
	return d
}

func (d *distant) put(list ...*event.Event) {
	for _, e := range list {
		d.events[e.ID] = e
	}
}

func (d *distant) count(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls[what]++
}

func (d *distant) total() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, c := range d.calls {
		n += c
	}
	return n
}

var errGone = errors.New("nothing there")

func (d *distant) Event(_ context.Context, _, _ matrix.ServerName, id matrix.EventID) ([]byte, error) {
	d.count("event")
	if e := d.events[id]; e != nil {
		return event.Federation(e), nil
	}
	return nil, errGone
}

func (d *distant) MissingEvents(_ context.Context, _, _ matrix.ServerName, _ matrix.RoomID, earliest, latest []matrix.EventID, limit int, _ int64) ([][]byte, error) {
	d.count("missing")
	if d.missing != nil {
		return d.missing(latest), nil
	}
	var out [][]byte
	seen := map[matrix.EventID]bool{}
	for _, id := range append(slices.Clone(earliest), latest...) {
		seen[id] = true
	}
	var todo []matrix.EventID
	for _, id := range latest {
		if e := d.events[id]; e != nil {
			todo = append(todo, e.PrevEvents...)
		}
	}
	for ; len(todo) > 0 && len(out) < limit; todo = todo[1:] {
		e := d.events[todo[0]]
		if e == nil || seen[e.ID] {
			continue
		}
		seen[e.ID] = true
		out = append(out, event.Federation(e))
		todo = append(todo, e.PrevEvents...)
	}
	slices.Reverse(out)
	return out, nil
}

func (d *distant) StateIDs(_ context.Context, _, _ matrix.ServerName, _ matrix.RoomID, at matrix.EventID) (state, auth []matrix.EventID, err error) {
	d.count("state_ids")
	if d.state == nil {
		return nil, nil, errGone
	}
	state, auth = d.state(at)
	return state, auth, nil
}

func (d *distant) State(context.Context, matrix.ServerName, matrix.ServerName, matrix.RoomID, matrix.EventID) (state, auth [][]byte, err error) {
	d.count("state")
	return nil, nil, errGone
}

func (d *distant) EventAuth(_ context.Context, _, _ matrix.ServerName, _ matrix.RoomID, id matrix.EventID) ([][]byte, error) {
	d.count("event_auth")
	var out [][]byte
	seen := map[matrix.EventID]bool{}
	for todo := []matrix.EventID{id}; len(todo) > 0; todo = todo[1:] {
		e := d.events[todo[0]]
		if e == nil || seen[e.ID] {
			continue
		}
		seen[e.ID] = true
		if e.ID != id {
			out = append(out, event.Federation(e))
		}
		todo = append(todo, e.AuthEvents...)
	}
	return out, nil
}

func (d *distant) Backfill(_ context.Context, _, _ matrix.ServerName, _ matrix.RoomID, from []matrix.EventID, limit int) ([][]byte, error) {
	d.count("backfill")
	var out [][]byte
	seen := map[matrix.EventID]bool{}
	for todo := slices.Clone(from); len(todo) > 0 && len(out) < limit; todo = todo[1:] {
		if e := d.events[todo[0]]; e != nil && !seen[e.ID] {
			seen[e.ID] = true
			out = append(out, event.Federation(e))
			todo = append(todo, e.PrevEvents...)
		}
	}
	return out, nil
}

func (k *kit) ingest(id matrix.RoomID, pdus ...[]byte) []error {
	return k.rooms.Ingest(k.ctx(), acme, k.far.name, id, pdus)
}

// chain is n messages of somebody, one after the other, the first on the head of the room.
func (k *kit) chain(id matrix.RoomID, version string, sender matrix.UserID, n int) []*event.Event {
	k.t.Helper()
	d := k.hello(id, version, sender)
	out := make([]*event.Event, n)
	for i := range out {
		d.Content = room.Object(map[string]any{"msgtype": "m.text", "body": bodyOf(i)})
		out[i] = k.far.pdu(k.t, version, d)
		d.PrevEvents, d.Depth, d.OriginServerTS = []matrix.EventID{out[i].ID}, d.Depth+1, d.OriginServerTS+1
	}
	return out
}

func pdus(list ...*event.Event) [][]byte {
	out := make([][]byte, len(list))
	for i, e := range list {
		out[i] = event.Federation(e)
	}
	return out
}

func (k *kit) noErrors(errs []error) {
	k.t.Helper()
	for i, err := range errs {
		if err != nil {
			k.t.Errorf("PDU %d: %v", i, err)
		}
	}
}

func (k *kit) shows(id matrix.RoomID, list ...*event.Event) {
	k.t.Helper()
	var got []matrix.EventID
	want := map[matrix.EventID]bool{}
	for _, e := range list {
		want[e.ID] = true
	}
	for _, e := range k.timeline(id) {
		if want[e.ID] {
			got = append(got, e.ID)
		}
	}
	ids := make([]matrix.EventID, len(list))
	for i, e := range list {
		ids[i] = e.ID
	}
	if !slices.Equal(got, ids) {
		k.t.Errorf("the timeline has %d of the %d events in order", len(got), len(ids))
	}
}

func TestF94_OneBadPDUOfFifty(t *testing.T) {
	t.Parallel()
	each(t, partner(), func(t *testing.T, k *kit) {
		id := k.create("12", "public", user("anna"))
		fred, _ := k.fred(id, "12")
		list := k.chain(id, "12", fred, 49)
		for what, bad := range map[string][]byte{
			"JSON":      []byte(`{"type":`),
			"signature": []byte(strings.Replace(string(event.Federation(list[3])), `"signatures":{"far.example":{"ed25519:`, `"signatures":{"far.example":{"ed25519:x`, 1)),
			"depth":     k.far.forge(t, "12", k.hello(id, "12", fred), "depth", "-1"),
			"room":      k.far.forge(t, "12", k.hello(id, "12", fred), "room_id", `"!`+make43('r')+`"`),
		} {
			all := pdus(list...)
			all = slices.Insert(all, 7, bad)
			errs := k.ingest(id, all...)
			if errs[7] == nil {
				t.Errorf("%s: a bad PDU was taken", what)
			}
			k.noErrors(slices.Delete(errs, 7, 8))
		}
		k.shows(id, list...)
		k.goesOn(id)
	})
}

func TestF95_UnknownRoom(t *testing.T) {
	t.Parallel()
	k := newKit(t, "sqlite", partner())
	d := k.meet()
	id := k.create("12", "public", user("anna"))
	fred, _ := k.fred(id, "12")
	e := k.chain(id, "12", fred, 1)[0]
	if errs := k.ingest(matrix.RoomID("!"+make43('q')), event.Federation(e)); errs[0] == nil {
		t.Error("a PDU for an unknown room was taken")
	}
	// A room that nobody of ours is in any more is as unknown.
	k.must(k.member(id, user("anna"), user("anna"), "leave"))
	lost := k.chain(id, "12", fred, 2)
	if errs := k.ingest(id, event.Federation(lost[1])); errs[0] == nil {
		t.Error("a PDU for a room that everybody has left was taken")
	}
	if n := d.total(); n != 0 {
		t.Errorf("%d look-ups for rooms that nobody is in", n)
	}
}

func TestF105_DurableBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	each(t, partner(), func(t *testing.T, k *kit) {
		id := k.create("12", "public", user("anna"))
		fred, _ := k.fred(id, "12")
		list := k.chain(id, "12", fred, 10)
		slices.Reverse(list) // whatever order they come in
		k.noErrors(k.ingest(id, pdus(list...)...))
		commits := k.db.Stats().Commits
		for _, e := range list {
			if k.event(e.ID) == nil {
				t.Errorf("%s is not stored", e.ID)
			}
		}
		k.noErrors(k.ingest(id, pdus(list...)...))
		if again := k.db.Stats().Commits; again != commits {
			t.Errorf("%d commits for what is known", again-commits)
		}
		slices.Reverse(list)
		k.shows(id, list...)
	})
}

func TestF106_GapIsFilledWithinBounds(t *testing.T) {
	t.Parallel()
	each(t, partner(), func(t *testing.T, k *kit) {
		d := k.meet()
		id := k.create("12", "public", user("anna"))
		fred, _ := k.fred(id, "12")
		list := k.chain(id, "12", fred, 30)
		d.put(list...)
		k.noErrors(k.ingest(id, event.Federation(list[29])))
		k.shows(id, list...)
		if n := d.calls["missing"]; n > 3 || d.calls["state_ids"] != 0 {
			t.Errorf("asked %v for 29 events", d.calls)
		}
		if h := k.head(id); len(h.Extremities) != 1 || h.Extremities[0] != list[29].ID {
			t.Errorf("extremities %v after the gap was filled", h.Extremities)
		}
		// A gap without end: after some calls the state is asked for instead.
		deep := k.chain(id, "12", fred, 400)
		d.put(deep...)
		clear(d.calls)
		var state []matrix.EventID
		k.must(k.db.Read(k.ctx(), func(tx *storage.Tx) error {
			all, err := tx.LoadState([]matrix.RoomID{id}, true)
			for _, e := range all[id] {
				state = append(state, e.ID)
			}
			return err
		}))
		d.state = func(matrix.EventID) ([]matrix.EventID, []matrix.EventID) { return slices.Clone(state), nil }
		k.noErrors(k.ingest(id, event.Federation(deep[399])))
		if n := d.calls["missing"]; n > 20 || d.calls["state_ids"] == 0 {
			t.Errorf("asked %v in a gap of 399 events", d.calls)
		}
		k.shows(id, deep[399])
		k.goesOn(id)
	})
}

func TestF106_BudgetOfARoom(t *testing.T) {
	t.Parallel()
	k := newKit(t, "sqlite", partner())
	d := k.meet()
	id := k.create("12", "public", user("anna"))
	fred, _ := k.fred(id, "12")
	h := k.hello(id, "12", fred)
	for i := range 700 {
		h.PrevEvents = []matrix.EventID{matrix.EventID(fmt.Sprintf("$%s%03d", make43('p')[:40], i))}
		if errs := k.ingest(id, k.far.forge(t, "12", h)); errs[0] == nil {
			t.Fatal("an event without parents was taken")
		}
	}
	if n := d.total(); n > 600 {
		t.Errorf("%d requests were made for 700 events that lead nowhere", n)
	}
	k.goesOn(id)
}

func TestF107_MissingEventsPoisoned(t *testing.T) {
	t.Parallel()
	each(t, partner(), func(t *testing.T, k *kit) {
		d := k.meet()
		id, other := k.create("12", "public", user("anna")), k.create("12", "public", user("anna"))
		fred, _ := k.fred(id, "12")
		k.fred(other, "12")
		list := k.chain(id, "12", fred, 3)
		foreign := k.chain(other, "12", fred, 2)
		unasked := k.chain(id, "12", fred, 1)[0]
		v, _ := matrix.FindRoomVersion("12")
		draft := k.hello(id, "12", fred)
		draft.Content = room.Object(map[string]any{"msgtype": "m.text", "body": "unsigned"})
		unsigned, err := event.Build(v, draft)
		k.must(err)
		d.missing = func([]matrix.EventID) [][]byte {
			out := append(pdus(foreign...), event.Federation(unsigned), event.Federation(unasked), []byte("{"), []byte(`{"a":"`+strings.Repeat("x", 1<<20)+`"}`))
			out = append(out, pdus(list[1], list[0])...)
			for range 10_000 {
				out = append(out, event.Federation(unasked))
			}
			return out
		}
		k.noErrors(k.ingest(id, event.Federation(list[2])))
		k.shows(id, list...)
		k.must(k.db.Read(k.ctx(), func(tx *storage.Tx) error {
			found, err := tx.LoadEvents([]matrix.EventID{foreign[0].ID, foreign[1].ID, unsigned.ID})
			if len(found) > 0 {
				t.Errorf("%d events of another room or without a signature were stored", len(found))
			}
			return err
		}))
		k.goesOn(other)
	})
}

// Auth events that nobody has told us of are fetched, and what cannot be found keeps its event out.
func TestF107_MissingAuthEvents(t *testing.T) {
	t.Parallel()
	each(t, partner(), func(t *testing.T, k *kit) {
		d := k.meet()
		id := k.create("12", "public", user("anna"))
		fred, join := k.fred(id, "12")
		rename := k.hello(id, "12", fred)
		rename.Type, rename.StateKey, rename.Content = "m.room.member", ptr(string(fred)), room.Object(map[string]any{"membership": "join", "displayname": "F"})
		rename.AuthEvents = k.draft(id, "12", fred, "m.room.member", ptr(string(fred)), map[string]any{"membership": "join"}).AuthEvents
		hidden := k.far.pdu(t, "12", rename)
		say := k.hello(id, "12", fred)
		for i, a := range say.AuthEvents {
			if a == join.ID {
				say.AuthEvents[i] = hidden.ID
			}
		}
		e := k.far.pdu(t, "12", say)
		if errs := k.ingest(id, event.Federation(e)); errs[0] == nil {
			t.Error("an event whose auth event nobody has was taken")
		}
		d.put(hidden, e)
		k.noErrors(k.ingest(id, event.Federation(e)))
		if got := k.event(hidden.ID); got.Flags != storage.Outlier {
			t.Errorf("the auth event is marked %b, want an outlier", got.Flags)
		}
		k.shows(id, e)
		// The outlier gets its place when it comes by itself.
		k.noErrors(k.ingest(id, event.Federation(hidden)))
		if got := k.event(hidden.ID); got.Flags != 0 || got.Pos <= 0 {
			t.Errorf("the event is marked %b at %d", got.Flags, got.Pos)
		}
	})
}

// Whatever another server answers, nothing of ours is deleted.
func TestR366_ErrorsDeleteNothing(t *testing.T) {
	t.Parallel()
	k := newKit(t, "sqlite", partner())
	d := k.meet()
	id := k.create("12", "public", user("anna"))
	fred, _ := k.fred(id, "12")
	before, state := len(k.timeline(id)), k.head(id).StateRoot
	lost := k.chain(id, "12", fred, 3)
	d.missing = func([]matrix.EventID) [][]byte { return [][]byte{[]byte(`{"errcode":"M_NOT_FOUND"}`), nil} }
	d.state = func(matrix.EventID) ([]matrix.EventID, []matrix.EventID) { return []matrix.EventID{lost[0].ID}, nil }
	if errs := k.ingest(id, event.Federation(lost[2])); errs[0] == nil {
		t.Error("an event with a state of nothing was taken")
	}
	if _, err := k.backfill(id, 10); err != nil {
		t.Error(err)
	}
	if n := len(k.timeline(id)); n != before || k.head(id).StateRoot != state {
		t.Errorf("%d events, want %d as before", n, before)
	}
	k.goesOn(id)
}
