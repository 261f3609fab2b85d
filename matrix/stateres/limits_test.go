package stateres

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
)

func TestSplit(t *testing.T) {
	t.Parallel()
	a, b, c := event.StateKey{Type: "a"}, event.StateKey{Type: "b"}, event.StateKey{Type: "c"}
	unconflicted, conflicted := Split([]stateMap{{a: "$1", b: "$3", c: "$4"}, {a: "$1", b: "$2"}, {a: "$1", b: "$3"}})
	if want := (stateMap{a: "$1"}); !maps.Equal(unconflicted, want) {
		t.Errorf("unconflicted = %v, want %v", unconflicted, want)
	}
	if !slices.Equal(conflicted[b], []matrix.EventID{"$2", "$3"}) || !slices.Equal(conflicted[c], []matrix.EventID{"$4"}) ||
		len(conflicted) != 2 {
		t.Errorf("conflicted = %v", conflicted)
	}
}

// fork is a room with a topic on each of two forks.
func fork(t testing.TB, version string) (*room, []stateMap) {
	r := newRoom(t, version)
	r.found()
	r.send("one", []string{"public"}, alice, "m.room.topic", "", `{"topic":"1"}`)
	r.send("two", []string{"public"}, alice, "m.room.topic", "", `{"topic":"2"}`)
	return r, []stateMap{r.after[r.named["one"].ID], r.after[r.named["two"].ID]}
}

func (r *room) conflict(states []stateMap) Conflict {
	unconflicted, conflicted := Split(states)
	return Conflict{
		Version: r.v, Create: r.create, Conflicted: conflicted, Events: r.load,
		Unconflicted: func(k event.StateKey) matrix.EventID { return unconflicted[k] },
	}
}

func TestResolve_Errors(t *testing.T) {
	t.Parallel()
	everyVersion(t, matrix.RoomVersions(), func(t *testing.T, r *room) {
		r, states := fork(t, r.v.ID)
		c := r.conflict(states)
		if _, err := Resolve(c); err != nil {
			t.Fatalf("Resolve: %v", err)
		}
		c.Limit = 2
		if _, err := Resolve(c); !errors.Is(err, ErrLimit) {
			t.Errorf("limit: %v, want ErrLimit", err)
		}
		c = r.conflict(states)
		lost := r.named["alice"].ID
		c.Events = func(ids []matrix.EventID) (map[matrix.EventID]*event.Event, error) {
			found, err := r.load(ids)
			delete(found, lost)
			return found, err
		}
		var missing *MissingError
		if _, err := Resolve(c); !errors.As(err, &missing) || !slices.Equal(missing.IDs, []matrix.EventID{lost}) {
			t.Errorf("missing event: %v, want a MissingError", err)
		}
		broken := errors.New("database is gone")
		c.Events = func([]matrix.EventID) (map[matrix.EventID]*event.Event, error) { return nil, broken }
		if _, err := Resolve(c); !errors.Is(err, broken) {
			t.Errorf("failing load: %v", err)
		}
		c = r.conflict(states)
		foreign := *r.named["one"]
		foreign.RoomID = "!other:a.example"
		r.events[foreign.ID] = &foreign
		if _, err := Resolve(c); !errors.Is(err, ErrForeign) {
			t.Errorf("event of another room: %v, want ErrForeign", err)
		}
		if _, err := Resolve(Conflict{}); err == nil {
			t.Error("an empty conflict gave no error")
		}
		if got, err := Resolve(Conflict{Version: r.v, Create: r.create, Events: r.load}); err != nil || len(got) != 0 {
			t.Errorf("no conflict: %v, %v", got, err)
		}
	})
}

// A few large batches, whatever the number of conflicts: each one is a query.
func TestResolve_Batches(t *testing.T) {
	t.Parallel()
	everyVersion(t, matrix.RoomVersions(), func(t *testing.T, r *room) {
		r.found()
		r.member("bob", "public", bob, bob, "join")
		last := [2]string{"bob", "bob"}
		for i := range 40 {
			for f := range last {
				name := fmt.Sprint(f, i)
				r.send(name, []string{last[f]}, alice, "m.x", fmt.Sprint(i), `{"fork":`+fmt.Sprint(f)+`}`)
				last[f] = name
			}
		}
		c := r.conflict([]stateMap{r.after[r.named[last[0]].ID], r.after[r.named[last[1]].ID]})
		calls := 0
		c.Events = func(ids []matrix.EventID) (map[matrix.EventID]*event.Event, error) {
			calls++
			return r.load(ids)
		}
		got, err := Resolve(c)
		if err != nil || len(got) != 40 {
			t.Fatalf("Resolve: %d entries, %v", len(got), err)
		}
		if calls > 4 {
			t.Errorf("%d calls of Events, want at most 4", calls)
		}
	})
}

// A second create event with the room's ID never becomes state, nor does what it would authorise.
func TestA43_SecondCreate(t *testing.T) {
	t.Parallel()
	everyVersion(t, matrix.RoomVersions()[1:11], func(t *testing.T, r *room) {
		r.found()
		second := r.draft(auth.TypeCreate, str(""), "@eve:a.example", `{"creator":"@eve:a.example"}`, 0)
		r.put(second, stateMap{})
		r.named["second"] = second
		r.expect([]stateMap{r.after[r.named["public"].ID], {second.Key(): second.ID}}, "alice", "levels", "public")
	})
}

// Cycles exist only where IDs are free text: they end nothing but their own chances.
func TestResolve_Cycle(t *testing.T) {
	t.Parallel()
	everyVersion(t, []string{"1", "2"}, func(t *testing.T, r *room) {
		r, states := fork(t, r.v.ID)
		one, two := *r.named["one"], *r.named["two"]
		for _, typ := range []string{auth.TypePowerLevels, auth.TypeJoinRules, "m.room.topic"} {
			one.Type, two.Type = typ, typ
			one.AuthEvents, two.AuthEvents = []matrix.EventID{two.ID, one.ID}, []matrix.EventID{one.ID}
			r.events[one.ID], r.events[two.ID] = &one, &two
			c := r.conflict([]stateMap{states[0], {one.Key(): one.ID}, {two.Key(): two.ID}})
			c.AuthDifference = []matrix.EventID{one.ID, two.ID}
			if _, err := Resolve(c); err != nil {
				t.Errorf("cycle of %s: %v", typ, err)
			}
		}
		loop := func(ids []matrix.EventID) (map[matrix.EventID][]matrix.EventID, error) {
			return map[matrix.EventID][]matrix.EventID{one.ID: one.AuthEvents, two.ID: two.AuthEvents}, nil
		}
		if _, err := Ranked([]matrix.EventID{one.ID}, loop, 0); !errors.Is(err, ErrGraph) {
			t.Errorf("Ranked of a cycle: %v, want ErrGraph", err)
		}
		lying := func([]matrix.EventID) (map[matrix.EventID]Node, error) {
			return map[matrix.EventID]Node{one.ID: {AuthEvents: one.AuthEvents}, two.ID: {AuthEvents: two.AuthEvents}}, nil
		}
		if _, err := AuthDifference([][]matrix.EventID{{one.ID}, {two.ID}}, nil, lying, 0); !errors.Is(err, ErrGraph) {
			t.Errorf("AuthDifference of a cycle: %v, want ErrGraph", err)
		}
	})
}

// ladder is a chain of auth events, far longer than any stack would like.
func ladder(n int) (ids []matrix.EventID, edges map[matrix.EventID][]matrix.EventID) {
	edges = make(map[matrix.EventID][]matrix.EventID, n)
	for i := range n {
		id := matrix.EventID(fmt.Sprintf("$%d", i))
		edges[id] = nil
		if i > 0 {
			edges[id] = []matrix.EventID{ids[i-1]}
		}
		ids = append(ids, id)
	}
	return ids, edges
}

func TestGraph_LongChain(t *testing.T) {
	t.Parallel()
	const n = 100_000
	ids, edges := ladder(n)
	all := func([]matrix.EventID) (map[matrix.EventID][]matrix.EventID, error) { return edges, nil }
	top := ids[n-1:]
	if _, err := Ranked(top, all, n/2); !errors.Is(err, ErrLimit) {
		t.Errorf("Ranked with a limit: %v, want ErrLimit", err)
	}
	graph, err := Ranked(top, all, n)
	if err != nil {
		t.Fatalf("Ranked: %v", err)
	}
	difference, err := AuthDifference([][]matrix.EventID{top, ids[:1]}, nil, graph, n)
	if err != nil || len(difference) != n-1 {
		t.Errorf("AuthDifference: %d events, %v; want %d", len(difference), err, n-1)
	}
	if _, err := AuthDifference([][]matrix.EventID{top, ids[:1]}, nil, graph, 100); !errors.Is(err, ErrLimit) {
		t.Errorf("AuthDifference with a limit: %v, want ErrLimit", err)
	}
	subgraph, err := ConflictedSubgraph([]matrix.EventID{ids[n-1], ids[5]}, graph, n)
	if err != nil || len(subgraph) != n-5 {
		t.Errorf("ConflictedSubgraph: %d events, %v; want %d", len(subgraph), err, n-5)
	}
	if _, err := ConflictedSubgraph([]matrix.EventID{ids[n-1], ids[5]}, graph, 100); !errors.Is(err, ErrLimit) {
		t.Errorf("ConflictedSubgraph with a limit: %v, want ErrLimit", err)
	}
	var missing *MissingError
	if _, err := ConflictedSubgraph([]matrix.EventID{"$gone"}, graph, n); !errors.As(err, &missing) {
		t.Errorf("unknown event: %v, want a MissingError", err)
	}
}

// The walk stops where the forks meet; what lies below is never loaded.
func TestAuthDifference_StopsWhereForksMeet(t *testing.T) {
	t.Parallel()
	ids, edges := ladder(10_000)
	graph, err := Ranked(ids[len(ids)-1:], func([]matrix.EventID) (map[matrix.EventID][]matrix.EventID, error) { return edges, nil }, 0)
	if err != nil {
		t.Fatal(err)
	}
	loaded := 0
	counting := func(want []matrix.EventID) (map[matrix.EventID]Node, error) {
		loaded += len(want)
		return graph(want)
	}
	difference, err := AuthDifference([][]matrix.EventID{ids[9990:9991], ids[9999:]}, nil, counting, 0)
	if err != nil || len(difference) != 9 || loaded > 11 {
		t.Errorf("%d events in the difference, %d loaded, %v; want 9 and at most 11", len(difference), loaded, err)
	}
	loaded = 0
	common := func(asked []matrix.EventID) (map[matrix.EventID]bool, error) {
		found := map[matrix.EventID]bool{}
		for _, id := range asked {
			found[id] = len(id) < 5
		}
		return found, nil
	}
	if _, err := AuthDifference([][]matrix.EventID{ids[5000:5001], nil}, common, counting, 0); err != nil || loaded != 4002 {
		t.Errorf("%d loaded down to the common part, %v; want 4002", loaded, err)
	}
	if Rank() != 0 || Rank(Node{Rank: 4}, Node{Rank: 2}) != 5 {
		t.Error("Rank is wrong")
	}
	many := make([][]matrix.EventID, 65)
	if _, err := AuthDifference(many, nil, graph, 0); !errors.Is(err, ErrLimit) {
		t.Errorf("65 sets: %v, want ErrLimit", err)
	}
}

// A hostile chain of power levels is walked without a stack and within the limit.
func TestResolve_LongMainline(t *testing.T) {
	t.Parallel()
	r, states := fork(t, "11")
	last := r.named["levels"]
	for i := range 20_000 {
		next := *last
		next.ID = matrix.EventID(fmt.Sprintf("$pl%d", i))
		next.AuthEvents = []matrix.EventID{r.create.ID, last.ID, r.named["alice"].ID}
		r.events[next.ID], last = &next, &next
	}
	for _, s := range states {
		s[last.Key()] = last.ID
	}
	c := r.conflict(states)
	if _, err := Resolve(c); err != nil {
		t.Errorf("Resolve: %v", err)
	}
	c.Limit = 1000
	if _, err := Resolve(c); !errors.Is(err, ErrLimit) {
		t.Errorf("Resolve with a limit: %v, want ErrLimit", err)
	}
}
