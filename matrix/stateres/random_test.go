package stateres

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
)

// dice gives a number below n.
type dice func(n int) int

func pick[T any](d dice, list []T) T { return list[d(len(list))] }

// grow adds random events to a room: several servers act on different forks, with clocks that differ, and sometimes
// continue from an old event, as a server does that was cut off or that lies. It returns the forks.
func grow(r *room, d dice, servers, steps int) []matrix.EventID {
	users := []matrix.UserID{alice}
	for i := 1; i < servers*2; i++ {
		users = append(users, matrix.UserID(fmt.Sprintf("@u%d:s%d.example", i, i%servers)))
	}
	all := []matrix.EventID{r.create.ID}
	heads := []matrix.EventID{r.create.ID}
	add := func(prev []matrix.EventID, act func(stateMap) *event.Event) bool {
		var states []stateMap
		for _, p := range prev {
			states = append(states, r.after[p])
		}
		state := r.resolve(states)
		ev := act(state)
		ev.PrevEvents = slices.Clone(prev)
		for _, p := range prev {
			ev.Depth = max(ev.Depth, r.events[p].Depth+1)
		}
		cite(ev, state)
		if r.allowed(ev, state) != nil {
			return false
		}
		r.put(ev, state)
		heads = slices.DeleteFunc(heads, func(h matrix.EventID) bool { return slices.Contains(ev.PrevEvents, h) })
		heads, all = append(heads, ev.ID), append(all, ev.ID)
		return true
	}
	for _, begin := range []func(stateMap) *event.Event{
		func(stateMap) *event.Event { return r.randomMember(alice, alice, "join", 1) },
		func(stateMap) *event.Event {
			return r.draft(auth.TypePowerLevels, str(""), alice, r.levels(users[1], 50), 2)
		},
		func(stateMap) *event.Event {
			return r.draft(auth.TypeJoinRules, str(""), alice, `{"join_rule":"public"}`, 3)
		},
	} {
		add(heads, begin)
	}
	for range steps {
		prev := []matrix.EventID{pick(d, heads)}
		switch d(6) {
		case 0, 1:
			if other := pick(d, heads); other != prev[0] {
				prev = append(prev, other)
			}
		case 2, 3:
			prev[0] = pick(d, all[len(all)*2/3:])
		case 4:
			prev[0] = pick(d, all)
		}
		add(prev, func(state stateMap) *event.Event { return r.randomEvent(d, users, state) })
	}
	return heads
}

func (r *room) randomMember(sender, target matrix.UserID, membership string, ts int64) *event.Event {
	return r.draft(auth.TypeMember, str(string(target)), sender, `{"membership":"`+membership+`"}`, ts)
}

func (r *room) randomEvent(d dice, users []matrix.UserID, state stateMap) *event.Event {
	sender, target := pick(d, users), pick(d, users)
	if d(2) == 0 {
		sender = users[d(2)] // somebody with power
	}
	ts := int64(100 + len(r.events)*3 + d(40))
	joined := func(u matrix.UserID) bool {
		return auth.Membership(r.events[state[event.StateKey{Type: auth.TypeMember, Key: string(u)}]]) == auth.Join
	}
	if !joined(sender) {
		return r.randomMember(sender, sender, pick(d, []string{"join", "join", "join", "knock", "leave"}), ts)
	}
	switch d(12) {
	case 0, 1:
		return r.randomMember(sender, target, "ban", ts)
	case 2:
		return r.randomMember(sender, target, "leave", ts)
	case 3:
		return r.randomMember(sender, target, "invite", ts)
	case 4, 5:
		var levels []any
		for _, u := range users[1:] {
			if d(2) == 0 {
				levels = append(levels, u, pick(d, []int{0, 10, 50, 50, 100}))
			}
		}
		return r.draft(auth.TypePowerLevels, str(""), sender, r.levels(levels...), ts)
	case 6:
		rule := pick(d, []string{"public", "public", "invite", "knock", "restricted"})
		return r.draft(auth.TypeJoinRules, str(""), sender, `{"join_rule":"`+rule+`"}`, ts)
	case 7:
		return r.draft(auth.TypeMember, str(string(sender)), sender, fmt.Sprintf(`{"displayname":"%d","membership":"join"}`, ts), ts)
	case 8:
		return r.draft("m.own", str(string(sender)), sender, fmt.Sprintf(`{"n":%d}`, ts), ts)
	case 9:
		return r.draft(auth.TypeThirdPartyInvite, str("t"), sender, fmt.Sprintf(`{"n":%d}`, ts), ts)
	default:
		return r.draft("m.room.topic", str(""), sender, fmt.Sprintf(`{"topic":"%d"}`, ts), ts)
	}
}

// statesOf picks a few states: those of the forks, those after any event, and sometimes one that a server made up by
// leaving entries out or by taking older ones.
func statesOf(r *room, d dice, heads []matrix.EventID) []stateMap {
	all := slices.Sorted(maps.Keys(r.after))
	var states []stateMap
	for range 2 + d(3) {
		from := pick(d, all)
		if d(3) > 0 {
			from = pick(d, heads)
		}
		s := maps.Clone(r.after[from])
		if d(3) == 0 {
			mangle(r, d, s, all)
		}
		states = append(states, s)
	}
	return states
}

func mangle(r *room, d dice, s stateMap, all []matrix.EventID) {
	for _, k := range slices.SortedFunc(maps.Keys(s), func(a, b event.StateKey) int {
		if a.Type+a.Key < b.Type+b.Key {
			return -1
		}
		return 1
	}) {
		if k.Type == auth.TypeCreate {
			continue
		}
		switch d(5) {
		case 0:
			delete(s, k)
		case 1:
			if ev := r.events[pick(d, all)]; ev.IsState() && ev.Type != auth.TypeCreate {
				s[ev.Key()] = ev.ID
			}
		}
	}
}

// checkResolution compares Resolve with the reference, and asks for the properties that hold for any input.
func checkResolution(t interface{ Fatalf(string, ...any) }, r *room, d dice, states []stateMap) {
	got, want := r.resolve(states), r.ref.resolve(states)
	if !maps.Equal(got, want) {
		t.Fatalf("version %s: resolved to %v, the reference to %v", r.v.ID, got, want)
	}
	shuffled := slices.Clone(states)
	for i := range shuffled {
		j := i + d(len(shuffled)-i)
		shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
	}
	if again := r.resolve(append(shuffled, states[0])); !maps.Equal(got, again) {
		t.Fatalf("version %s: another order resolves to %v instead of %v", r.v.ID, again, got)
	}
	if same := r.resolve([]stateMap{got, got}); !maps.Equal(got, same) {
		t.Fatalf("version %s: a state with itself resolves to %v instead of %v", r.v.ID, same, got)
	}
	if alone := r.resolveConflictAlone(states); !maps.Equal(got, alone) {
		t.Fatalf("version %s: the conflict alone resolves to %v instead of %v", r.v.ID, alone, got)
	}
}

// resolveConflictAlone resolves as a server does: what all forks share is known by look-ups only.
func (r *room) resolveConflictAlone(states []stateMap) stateMap {
	r.t.Helper()
	unconflicted, conflicted := Split(states)
	shared := idSet{}
	for _, id := range unconflicted {
		shared[id] = true
		maps.Copy(shared, r.ref.chain(id))
	}
	sets := make([][]matrix.EventID, len(states))
	for i, s := range states {
		for k := range conflicted {
			if s[k] != "" {
				sets[i] = append(sets[i], s[k])
			}
		}
	}
	common := func(ids []matrix.EventID) (map[matrix.EventID]bool, error) {
		found := map[matrix.EventID]bool{}
		for _, id := range ids {
			found[id] = shared[id]
		}
		return found, nil
	}
	difference, err := AuthDifference(sets, common, r.graph, 0)
	if err != nil {
		r.t.Fatalf("AuthDifference: %v", err)
	}
	subgraph, err := ConflictedSubgraph(flatten(conflicted), r.graph, 0)
	if err != nil {
		r.t.Fatalf("ConflictedSubgraph: %v", err)
	}
	got, err := Resolve(Conflict{
		Version: r.v, Create: r.create, Conflicted: conflicted, AuthDifference: difference, Subgraph: subgraph, Events: r.load,
		Unconflicted: func(k event.StateKey) matrix.EventID { return unconflicted[k] },
		Rejected:     func(id matrix.EventID) bool { return r.ref.rejected[id] },
	})
	if err != nil {
		r.t.Fatalf("Resolve: %v", err)
	}
	maps.Copy(unconflicted, got)
	return unconflicted
}

// TestA78_Differential runs thousands of random rooms of every version through Resolve and the reference.
func TestA78_Differential(t *testing.T) {
	t.Parallel()
	const rooms = 200
	for _, id := range matrix.RoomVersions() {
		t.Run("v"+id, func(t *testing.T) {
			t.Parallel()
			for seed := range rooms {
				random := rand.New(rand.NewPCG(uint64(seed), 78))
				r := newRoom(t, id)
				heads := grow(r, random.IntN, 2+random.IntN(5), 10+random.IntN(30))
				if random.IntN(4) == 0 {
					r.ref.rejected[pick(random.IntN, slices.Sorted(maps.Keys(r.after)))] = true
				}
				for range 3 {
					checkResolution(t, r, random.IntN, statesOf(r, random.IntN, heads))
				}
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
		})
	}
}

// TestA78_Shrinking is the same with rapid, which finds a small room where something is wrong.
func TestA78_Shrinking(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"1", "2", "6", "11", "12"} {
		t.Run("v"+id, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(rt *rapid.T) {
				d := func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "") }
				r := newRoom(t, id)
				heads := grow(r, d, 2+d(5), d(20))
				checkResolution(rt, r, d, statesOf(r, d, heads))
			})
		})
	}
}

// TestA79_OrderIndependence delivers one history in many orders to nodes that compute every state for themselves: all
// end with the same one.
func TestA79_OrderIndependence(t *testing.T) {
	t.Parallel()
	for _, id := range matrix.RoomVersions() {
		t.Run("v"+id, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(79, uint64(len(id))))
			for range 6 {
				r := newRoom(t, id)
				heads := grow(r, random.IntN, 3, 30)
				want := r.stateAtHeads(heads)
				for range 12 {
					if got := r.deliver(random).stateAtHeads(heads); !maps.Equal(got, want) {
						t.Fatalf("another order of delivery gives %v instead of %v", got, want)
					}
				}
			}
		})
	}
}

func (r *room) stateAtHeads(heads []matrix.EventID) stateMap {
	var states []stateMap
	for _, h := range heads {
		states = append(states, r.after[h])
	}
	return r.resolve(states)
}

// deliver gives all events to another node, some twice, each as soon as its parents and auth events are there.
func (r *room) deliver(random *rand.Rand) *room {
	node := newRoom(r.t, r.v.ID)
	waiting := slices.Sorted(maps.Keys(r.events))
	waiting = append(waiting, waiting[:len(waiting)/3]...)
	random.Shuffle(len(waiting), func(i, j int) { waiting[i], waiting[j] = waiting[j], waiting[i] })
	for len(waiting) > 0 {
		waiting = slices.DeleteFunc(waiting, func(id matrix.EventID) bool {
			ev := r.events[id]
			if node.events[id] != nil {
				return true
			}
			var states []stateMap
			for _, p := range ev.PrevEvents {
				if node.events[p] == nil {
					return false
				}
				states = append(states, node.after[p])
			}
			random.Shuffle(len(states), func(i, j int) { states[i], states[j] = states[j], states[i] })
			node.put(ev, node.resolve(states))
			return true
		})
	}
	return node
}
