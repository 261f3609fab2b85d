package room_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage/storagetest"
)

// forked is a room of anna's in which fred and gina of the far server write on forks of their own: topics, names, power, a ban.
func forked(k *kit, version string) (matrix.RoomID, []*event.Event) {
	k.t.Helper()
	id := k.create(version, "public", user("anna"))
	fred, _ := k.fred(id, version)
	levels := map[string]any{"users": map[string]any{string(fred): 100, "@gina:far.example": 50}}
	if version != "12" {
		levels["users"].(map[string]any)[string(user("anna"))] = 100
	}
	k.must(k.state(id, user("anna"), "m.room.power_levels", "", levels))
	gina := matrix.UserID("@gina:far.example")
	k.accepted(id, "gina", k.far.forge(k.t, version, k.draft(id, version, gina, "m.room.member", ptr(string(gina)), map[string]any{"membership": "join"})))
	var list []*event.Event
	line := func(who matrix.UserID, ts int64, steps ...func(*event.Draft)) {
		d := k.hello(id, version, who)
		for i, step := range steps {
			d.Type, d.StateKey, d.Content = "m.room.message", nil, room.Object(map[string]any{"msgtype": "m.text", "body": fmt.Sprint(ts, i)})
			step(&d)
			d.OriginServerTS = ts + int64(i)
			e := k.far.pdu(k.t, version, d)
			list = append(list, e)
			d.PrevEvents, d.Depth = []matrix.EventID{e.ID}, d.Depth+1
		}
	}
	state := func(typ, value string) func(*event.Draft) {
		return func(d *event.Draft) {
			d.Type, d.StateKey, d.Content = typ, ptr(""), room.Object(map[string]any{"value": value})
		}
	}
	say := func(*event.Draft) {}
	line(fred, 1_800_000_000_000, state("m.room.topic", "one"), say, state("m.room.name", "a"), say)
	line(fred, 1_800_000_000_500, state("m.room.topic", "two"), state("x", "1"), say)
	line(gina, 1_800_000_000_200, state("m.room.topic", "three"), state("m.room.name", "b"), state("y", "2"))
	ban := k.draft(id, version, fred, "m.room.member", ptr(string(gina)), map[string]any{"membership": "ban"})
	ban.OriginServerTS = 1_800_000_000_900
	list = append(list, k.far.pdu(k.t, version, ban))
	return id, list
}

// The same events in any order, doubled and in any portions, make the same state.
func TestA79_AnyOrderOneState(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"6", "12"} {
		r := rand.New(rand.NewPCG(79, 1))
		var want string
		for round := range 12 {
			k := newKit(t, "sqlite", partner())
			d := k.meet()
			id, list := forked(k, version)
			d.put(list...)
			r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
			for _, e := range append(list[:len(list):len(list)], list[:3]...) {
				if r.IntN(4) > 0 || round%2 == 0 {
					k.noErrors(k.ingest(id, event.Federation(e)))
				}
			}
			k.noErrors(k.ingest(id, pdus(list...)...))
			got := ""
			k.must(k.rooms.Look(k.ctx(), id, func(v room.View) {
				for _, typ := range []string{"m.room.topic", "m.room.name", "x", "y"} {
					value := "-"
					if e := v.State(typ, ""); e != nil {
						value, _ = event.ContentString(e, "value")
					}
					got += typ + "=" + value + " "
				}
				got += v.Membership("@gina:far.example")
			}))
			if want == "" {
				want = got
			}
			if got != want {
				t.Errorf("version %s, round %d: %s, want %s", version, round, got, want)
			}
		}
	}
}

// Two nodes take events into one room at once.
func TestIngest_TwoNodes(t *testing.T) {
	t.Parallel()
	k := newKit(t, "postgres", partner())
	id := k.create("12", "public", user("anna"))
	fred, _ := k.fred(id, "12")
	stream, db := k.open()
	other := room.New(room.Deps{DB: db, Stream: stream, Policy: k.engine, Parties: k.facts, Keys: k.keys, Keyring: k.far, Log: storagetest.Quiet()})
	var all []*event.Event
	var wg sync.WaitGroup
	for i, node := range []*room.Service{k.rooms, other, k.rooms, other} {
		d := k.hello(id, "12", fred)
		var list []*event.Event
		for n := range 20 {
			d.Content = room.Object(map[string]any{"msgtype": "m.text", "body": fmt.Sprint(i, " ", n)})
			e := k.far.pdu(t, "12", d)
			list = append(list, e)
			d.PrevEvents, d.Depth = []matrix.EventID{e.ID}, d.Depth+1
		}
		all = append(all, list...)
		wg.Go(func() {
			for _, e := range list {
				for _, err := range node.Ingest(context.Background(), acme, k.far.name, id, pdus(e)) {
					if err != nil {
						t.Errorf("line %d: %v", i, err)
					}
				}
			}
		})
	}
	wg.Wait()
	seen := map[matrix.EventID]int{}
	for _, e := range k.timeline(id) {
		seen[e.ID]++
	}
	for _, e := range all {
		if seen[e.ID] != 1 {
			t.Errorf("%s is %d times in the timeline", e.ID, seen[e.ID])
		}
	}
	k.restart()
	if n := len(k.head(id).Extremities); n != 4 {
		t.Errorf("%d extremities, want the ends of 4 lines", n)
	}
	k.goesOn(id)
}
