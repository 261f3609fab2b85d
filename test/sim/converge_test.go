package sim

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage"
	"hansa/storage/statemap"
)

// TestConverges is the simulation.
func TestConverges(t *testing.T) {
	f := newFleet(t)
	versions := matrix.RoomVersions()
	if v := os.Getenv("HANSA_SIM_VERSION"); v != "" {
		versions = strings.Split(v, ",")
	}
	if s := os.Getenv("HANSA_SIM_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		must(t, err)
		for _, v := range versions {
			run(t, f, v, seed, true)
		}
		return
	}
	seeds := 0
	if s := os.Getenv("HANSA_SIM_SEEDS"); s != "" {
		var err error
		seeds, err = strconv.Atoi(s)
		must(t, err)
	}
	if seeds == 0 { // fifty in all, each version in its turn
		for i := range 50 {
			run(t, f, versions[i%len(versions)], uint64(i), false)
		}
		return
	}
	for _, v := range versions {
		t.Run("version "+v, func(t *testing.T) {
			apart := 0
			for i := range seeds {
				apart += run(t, f, v, uint64(i), false)
			}
			t.Logf("%d seeds; %d pairs of servers came apart", seeds, apart)
		})
	}
}

// run is one simulation.
func run(t *testing.T, f *fleet, version string, seed uint64, loud bool) (apart int) {
	t.Helper()
	dir, err := os.MkdirTemp(fast(), "hansa-sim-")
	must(t, err)
	defer func() { _ = os.RemoveAll(dir) }()
	w := newWorld(t, f, dir, version, seed, loud)
	defer w.close()
	w.create()
	for n := range 80 {
		w.step(n)
	}
	w.settle()
	if w.compare() && !loud {
		t.Logf("the last steps of %s:\n%s", w, strings.Join(w.steps[max(0, len(w.steps)-30):], "\n"))
		t.Logf("again: HANSA_SIM_SEED=%d HANSA_SIM_VERSION=%s go test ./test/sim -run TestConverges -v", seed, version)
	}
	return w.apart
}

// fast is a folder in memory where there is one: nothing here is about what survives a loss of power.
func fast() string {
	if i, err := os.Stat("/dev/shm"); err == nil && i.IsDir() {
		return "/dev/shm"
	}
	return ""
}

// view is what a server knows of the room in the end.
type view struct {
	s      *server
	head   storage.Head
	state  map[event.StateKey]matrix.EventID
	events map[matrix.EventID]*storage.Event // of the graph below the head
	lost   []matrix.EventID                  // parents that it lacks
}

func (s *server) view() *view {
	ctx, w := context.Background(), s.w
	v := &view{s: s, state: map[event.StateKey]matrix.EventID{}, events: map[matrix.EventID]*storage.Event{}}
	live := map[event.StateKey]matrix.EventID{}
	must(w.t, s.rooms.Look(ctx, w.room, func(look room.View) {
		v.head = look.Head()
		for e := range look.AllState() {
			live[e.Key()] = e.ID
		}
		for u := range look.Members() {
			live[event.StateKey{Type: "m.room.member", Key: string(u)}] = look.MemberEvent(u)
		}
	}))
	must(w.t, s.db.View(ctx, func(tx *storage.Tx) error {
		if err := statemap.Walk(tx.LoadNodes, v.head.StateRoot, func(k event.StateKey, id matrix.EventID) { v.state[k] = id }); err != nil {
			return err
		}
		list, err := tx.LoadState([]matrix.RoomID{w.room}, true)
		table := map[event.StateKey]matrix.EventID{}
		for _, e := range list[w.room] {
			table[e.Key()] = e.ID
		}
		same(w, s, "in memory", live, v.state)
		same(w, s, "in the table", table, v.state)
		if err != nil {
			return err
		}
		todo := slices.Clone(v.head.Extremities)
		for len(todo) > 0 {
			found, err := tx.LoadEvents(todo)
			if err != nil {
				return err
			}
			var next []matrix.EventID
			for _, id := range todo {
				e := found[id]
				if e == nil || e.Flags&storage.Outlier != 0 {
					v.lost = append(v.lost, id)
					continue
				}
				if v.events[id] == nil {
					v.events[id] = e
					next = append(next, e.PrevEvents...)
				}
			}
			slices.Sort(next)
			todo = slices.DeleteFunc(slices.Compact(next), func(id matrix.EventID) bool { return v.events[id] != nil })
		}
		return nil
	}))
	return v
}

func same(w *world, s *server, where string, got, want map[event.StateKey]matrix.EventID) {
	for k, id := range want {
		if got[k] != id {
			w.t.Errorf("%s: %s: state of %v %s is %s, by the tree %s", w, s.name, k, where, got[k], id)
		}
	}
	for k, id := range got {
		if want[k] == "" {
			w.t.Errorf("%s: %s: state of %v %s is %s, by the tree there is none", w, s.name, k, where, id)
		}
	}
}

// compare reports true where servers that take each other for being in the room differ. State resolution can leave a server out that never
// hears of it, since nobody talks to it any more, and users whom the others do not know to be in, whose words then fail softly with them;
// that is how the protocol is. So it is with a server that has nobody who may speak: what only it has heard of stays with it.
func (w *world) compare() (bad bool) {
	fail := func(format string, args ...any) {
		bad = true
		w.t.Errorf(w.String()+": "+format, args...)
	}
	var views []*view
	for _, s := range w.servers {
		switch {
		case !w.in(s):
		case len(w.said[s.name]) == 0:
			w.note("%s is mute", s.name)
			w.apart++
		default:
			views = append(views, s.view())
		}
	}
	for i, v := range views {
		for _, o := range views[:i] {
			if w.sees(v.s, o.s) && w.sees(o.s, v.s) && !w.deaf(v.s, o.s) && !w.deaf(o.s, v.s) {
				o.compare(v, fail)
			} else {
				w.note("%s and %s have come apart", v.s.name, o.s.name)
				w.apart++
			}
		}
	}
	if len(views) == 0 {
		w.note("nobody is left")
	}
	return bad
}

// sees tells whether one server is in the room by the account of another.
func (w *world) sees(s, o *server) bool {
	yes, err := s.rooms.InRoom(context.Background(), w.room, o.name)
	must(w.t, err)
	return yes
}

// deaf tells whether what one server said in the end failed softly with another.
func (w *world) deaf(s, o *server) (yes bool) {
	must(w.t, o.db.Read(context.Background(), func(tx *storage.Tx) error {
		flags, err := tx.FindEventFlags(w.said[s.name])
		for _, f := range flags {
			yes = yes || f&storage.SoftFailed != 0
		}
		return err
	}))
	return yes
}

// compare finds what differs between two views.
func (v *view) compare(o *view, fail func(string, ...any)) {
	for _, pair := range [][2]*view{{v, o}, {o, v}} { // what nobody has any more is lost for all
		for _, id := range pair[0].lost {
			if pair[1].events[id] != nil {
				fail("%s lacks %s, which %s has", pair[0].s.name, id, pair[1].s.name)
			}
		}
	}
	a, b := slices.Sorted(slices.Values(v.head.Extremities)), slices.Sorted(slices.Values(o.head.Extremities))
	if !slices.Equal(a, b) {
		fail("extremities of %s %v, of %s %v", v.s.name, a, o.s.name, b)
	}
	for k, id := range v.state {
		if o.state[k] != id {
			fail("state of %v: %s has %s, %s has %s", k, v.s.name, id, o.s.name, o.state[k])
		}
	}
	for k, id := range o.state {
		if v.state[k] == "" {
			fail("state of %v: %s has none, %s has %s", k, v.s.name, o.s.name, id)
		}
	}
	differ := 0
	for id, e := range v.events {
		other := o.events[id]
		switch {
		case other == nil:
			fail("%s has %s, %s has it not", v.s.name, id, o.s.name)
		case e.Flags&storage.Rejected != other.Flags&storage.Rejected:
			fail("%s is marked %b by %s and %b by %s", id, e.Flags, v.s.name, other.Flags, o.s.name)
		case e.StateRoot != other.StateRoot:
			if differ++; differ <= 3 {
				fail("the state after %s (%s of %s) differs between %s and %s", id, e.Type, e.Sender, v.s.name, o.s.name)
			}
		}
	}
	if len(v.events) != len(o.events) {
		fail("%s has %d events, %s %d", v.s.name, len(v.events), o.s.name, len(o.events))
	}
}
