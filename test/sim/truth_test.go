package sim

import (
	"fmt"
	"slices"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/matrix/stateres"
	"hansa/storage"
	"hansa/storage/statemap"
)

// state is the state of the room as a plain map.
type state map[event.StateKey]matrix.EventID

// truth is what the specification makes of all events that any server has: whether each is allowed, and the state after it. It is worked out
// from the events alone, in the plainest way: whole states, auth chains walked event by event, nothing kept from before.
type truth struct {
	w       *world
	create  *event.Event
	events  map[matrix.EventID]*event.Event
	ranks   map[matrix.EventID]int64
	unfit   map[matrix.EventID]bool // its own auth events do not allow it
	refused map[matrix.EventID]bool // those or the state before it do not
	after   map[matrix.EventID]state
	roots   map[matrix.EventID]statemap.Hash
	nodes   map[statemap.Hash][]byte
	made    map[string]state // of several states, by what they are of
	known   map[statemap.Hash]state
	forks   int
	err     error
}

// truth judges all events that servers have.
func (w *world) truth(views []*view) *truth {
	t := &truth{w: w, events: map[matrix.EventID]*event.Event{}, ranks: map[matrix.EventID]int64{}, unfit: map[matrix.EventID]bool{}, refused: map[matrix.EventID]bool{},
		after: map[matrix.EventID]state{}, roots: map[matrix.EventID]statemap.Hash{}, nodes: map[statemap.Hash][]byte{}, made: map[string]state{}, known: map[statemap.Hash]state{}}
	for _, v := range views {
		for id, e := range v.stored {
			if have := t.events[id]; have == nil || len(have.JSON) < len(e.JSON) { // what is redacted is shorter
				t.events[id] = e.Event
			}
			if e.Is(auth.TypeCreate, "") {
				t.create = t.events[id]
			}
		}
	}
	entered := map[matrix.EventID]bool{}
	for id := range t.events {
		for stack := []matrix.EventID{id}; len(stack) > 0; { // parents and auth events first
			top := stack[len(stack)-1]
			if t.roots[top] != (statemap.Hash{}) {
				stack = stack[:len(stack)-1]
				continue
			}
			e := t.events[top]
			if entered[top] {
				stack = stack[:len(stack)-1]
				t.judge(e)
				continue
			}
			entered[top] = true
			for _, p := range slices.Concat(e.PrevEvents, e.AuthEvents) {
				if t.events[p] == nil {
					w.t.Fatal(fmt.Sprintf("%s cites %s, which nobody has", top, p))
				}
				if !entered[p] {
					stack = append(stack, p)
				}
			}
		}
	}
	must(w.t, t.err)
	return t
}

// judge judges one event. All that it cites was judged before.
func (t *truth) judge(e *event.Event) {
	own := make(state)
	cited := make([]*event.Event, len(e.AuthEvents))
	for i, id := range e.AuthEvents {
		cited[i] = t.events[id]
		own[cited[i].Key()] = id
		t.ranks[e.ID] = max(t.ranks[e.ID], t.ranks[id]+1)
	}
	err := auth.CheckAuthEvents(e, cited, func(id matrix.EventID) bool { return t.refused[id] })
	if err == nil {
		err = t.check(e, own)
	}
	t.unfit[e.ID] = err != nil
	before := t.join(e.PrevEvents)
	if err == nil {
		err = t.check(e, before)
	}
	t.refused[e.ID] = err != nil
	t.after[e.ID] = before
	if err == nil && e.StateKey != nil {
		after := make(state, len(before)+1)
		for k, id := range before {
			after[k] = id
		}
		after[e.Key()] = e.ID
		t.after[e.ID] = after
	}
	if e.StateKey == nil && len(e.PrevEvents) == 1 {
		t.roots[e.ID] = t.roots[e.PrevEvents[0]]
	} else {
		t.roots[e.ID] = t.root(t.after[e.ID])
	}
}

func (t *truth) check(e *event.Event, s state) error {
	if e.ID == t.create.ID {
		return auth.CheckCreate(e)
	}
	return auth.Check(e, func(typ, key string) *event.Event {
		if typ == auth.TypeCreate && key == "" {
			return t.create // room version 12 never names it
		}
		return t.events[s[event.StateKey{Type: typ, Key: key}]]
	}, func(matrix.ServerName) bool { return true })
}

// root is the name of a state.
func (t *truth) root(s state) statemap.Hash {
	changes := make([]statemap.Change, 0, len(s))
	for k, id := range s {
		changes = append(changes, statemap.Change{Key: k, ID: id})
	}
	root, nodes, err := statemap.Put(func(list []statemap.Hash) (map[statemap.Hash][]byte, error) {
		out := map[statemap.Hash][]byte{}
		for _, h := range list {
			out[h] = t.nodes[h]
		}
		return out, nil
	}, statemap.Hash{}, changes)
	must(t.w.t, err)
	for _, n := range nodes {
		t.nodes[n.Hash] = n.Data
	}
	return root
}

// join makes one state of those after several events.
func (t *truth) join(of []matrix.EventID) state {
	var roots []statemap.Hash
	var states []map[event.StateKey]matrix.EventID
	for _, id := range of {
		if root := t.roots[id]; !slices.Contains(roots, root) {
			roots, states = append(roots, root), append(states, t.after[id])
		}
	}
	switch len(states) {
	case 0:
		return state{}
	case 1:
		return states[0]
	}
	slices.SortFunc(roots, func(a, b statemap.Hash) int { return slices.Compare(a[:], b[:]) })
	key := fmt.Sprint(roots)
	if s, ok := t.made[key]; ok {
		return s
	}
	t.forks++
	graph := func(ids []matrix.EventID) (map[matrix.EventID]stateres.Node, error) {
		out := make(map[matrix.EventID]stateres.Node, len(ids))
		for _, id := range ids {
			out[id] = stateres.Node{AuthEvents: t.events[id].AuthEvents, Rank: t.ranks[id]}
		}
		return out, nil
	}
	load := func(ids []matrix.EventID) (map[matrix.EventID]*event.Event, error) {
		out := make(map[matrix.EventID]*event.Event, len(ids))
		for _, id := range ids {
			out[id] = t.events[id]
		}
		return out, nil
	}
	s, err := stateres.ResolveStates(t.create, states, graph, load, func(id matrix.EventID) bool { return t.refused[id] })
	must(t.w.t, err)
	t.made[key] = s
	return s
}

// view is what a server knows of the room in the end.
type view struct {
	s      *server
	head   storage.Head
	stored map[matrix.EventID]*storage.Event // all that it has
	events map[matrix.EventID]*storage.Event // of the graph below the head
	lost   []matrix.EventID                  // parents that it lacks
}

// page is more events than a simulation has.
const page = 100_000

// view reads what a server knows; nil where it has never heard of the room.
func (s *server) view() *view {
	w := s.w
	v := &view{s: s, events: map[matrix.EventID]*storage.Event{}, stored: map[matrix.EventID]*storage.Event{}}
	live, tree, table := state{}, state{}, state{}
	err := s.rooms.Look(w.ctx, w.room, func(look room.View) {
		v.head = look.Head()
		for e := range look.AllState() {
			live[e.Key()] = e.ID
		}
		for u := range look.Members() {
			live[event.StateKey{Type: "m.room.member", Key: string(u)}] = look.MemberEvent(u)
		}
	})
	if err != nil {
		return nil
	}
	must(w.t, s.db.View(w.ctx, func(tx *storage.Tx) error {
		if err := statemap.Walk(tx.LoadNodes, v.head.StateRoot, func(k event.StateKey, id matrix.EventID) { tree[k] = id }); err != nil {
			return err
		}
		list, err := tx.LoadState([]matrix.RoomID{w.room}, true)
		if err != nil {
			return err
		}
		for _, e := range list[w.room] {
			table[e.Key()] = e.ID
		}
		if err := v.walk(tx); err != nil {
			return err
		}
		shown, err := tx.LoadPage(w.room, -page, storage.Forward, page)
		for _, e := range shown {
			v.stored[e.ID] = e
			// What was there before the server left and came back is not always a part of what it came back to.
			if v.events[e.ID] == nil && s.entries <= 1 {
				w.t.Errorf("%s shows %s, which is not below its head %v", s.name, e.ID, v.head.Extremities)
			}
		}
		return err
	}))
	v.same("in memory", live, tree)
	v.same("in the table", table, tree)
	return v
}

// walk reads the graph below the head.
func (v *view) walk(tx *storage.Tx) error {
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
				v.events[id], v.stored[id] = e, e
				next = append(next, e.PrevEvents...)
			}
		}
		slices.Sort(next)
		todo = slices.DeleteFunc(slices.Compact(next), func(id matrix.EventID) bool { return v.events[id] != nil })
	}
	return nil
}

func (v *view) same(where string, got, want state) {
	for k, id := range want {
		if got[k] != id {
			v.s.w.t.Errorf("%s: state of %v %s is %s, by the tree %s", v.s.name, k, where, got[k], id)
		}
	}
	for k, id := range got {
		if want[k] == "" {
			v.s.w.t.Errorf("%s: state of %v %s is %s, by the tree there is none", v.s.name, k, where, id)
		}
	}
}

// fill adds those of the named events that the server has, wherever they are in the graph.
func (v *view) fill(ids []matrix.EventID) {
	must(v.s.w.t, v.s.db.View(v.s.w.ctx, func(tx *storage.Tx) error {
		found, err := tx.LoadEvents(ids)
		for id, e := range found {
			v.stored[id] = e
		}
		return err
	}))
}
