package stateres

import (
	"fmt"
	"maps"
	"testing"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
)

// crowd is a room with many members and two forks that differ in some entries.
func crowd(b *testing.B, version string, members, conflicts int) (*room, []stateMap) {
	r := newRoom(b, version)
	r.found()
	r.send("by alice", []string{"public"}, alice, auth.TypePowerLevels, "", r.levels(bob, 50))
	state := r.after[r.named["by alice"].ID]
	enter := func(user matrix.UserID) {
		ev := r.randomMember(user, user, "join", r.clock)
		r.clock++
		cite(ev, state)
		r.events[ev.ID] = ev
		r.ranks[ev.ID] = Node{AuthEvents: ev.AuthEvents, Rank: 10}
		state[ev.Key()] = ev.ID
	}
	enter(bob)
	for i := range members {
		enter(matrix.UserID(fmt.Sprintf("@u%d:s%d.example", i, i%50)))
	}
	forks := []stateMap{maps.Clone(state), maps.Clone(state)}
	for i := range conflicts {
		for f, s := range forks {
			sender := matrix.UserID(fmt.Sprintf("@u%d:s%d.example", i, i%50))
			ev := r.draft(auth.TypeMember, str(string(sender)), sender, fmt.Sprintf(`{"displayname":"%d","membership":"join"}`, f), r.clock)
			if i%4 == 0 {
				ev = r.draft("m.room.topic", str(fmt.Sprint(i)), bob, fmt.Sprintf(`{"topic":"%d"}`, f), r.clock)
			}
			r.clock++
			cite(ev, s)
			r.events[ev.ID] = ev
			r.ranks[ev.ID] = Node{AuthEvents: ev.AuthEvents, Rank: 11}
			s[ev.Key()] = ev.ID
		}
	}
	return r, forks
}

// BenchmarkResolveTwoForks10k is a fork of a room with 10,000 members, with the conflict alone: split, difference and subgraph
// are found from what differs, the shared part is a look-up.
func BenchmarkResolveTwoForks10k(b *testing.B) {
	for _, version := range []string{"1", "11", "12"} {
		for _, conflicts := range []int{2, 20, 200} {
			b.Run(fmt.Sprintf("v%s/%d", version, conflicts), func(b *testing.B) {
				r, forks := crowd(b, version, 10_000, conflicts)
				unconflicted, conflicted := Split(forks)
				shared := make(map[matrix.EventID]bool, len(unconflicted))
				for _, id := range unconflicted {
					shared[id] = true
				}
				sets := make([][]matrix.EventID, len(forks))
				for k := range conflicted {
					for i, s := range forks {
						sets[i] = append(sets[i], s[k])
					}
				}
				common := func(ids []matrix.EventID) (map[matrix.EventID]bool, error) {
					found := make(map[matrix.EventID]bool, len(ids))
					for _, id := range ids {
						found[id] = shared[id]
					}
					return found, nil
				}
				b.ReportAllocs()
				for b.Loop() {
					difference, err := AuthDifference(sets, common, r.graph, 0)
					if err != nil {
						b.Fatal(err)
					}
					subgraph, err := ConflictedSubgraph(flatten(conflicted), r.graph, 0)
					if err != nil {
						b.Fatal(err)
					}
					got, err := Resolve(Conflict{
						Version: r.v, Create: r.create, Conflicted: conflicted, AuthDifference: difference, Subgraph: subgraph,
						Unconflicted: func(k event.StateKey) matrix.EventID { return unconflicted[k] }, Events: r.load,
					})
					if err != nil || len(got) != len(conflicted) {
						b.Fatalf("%d entries, %v; want %d", len(got), err, len(conflicted))
					}
				}
			})
		}
	}
}

// BenchmarkResolveStates10k is the same with whole states, for comparison.
func BenchmarkResolveStates10k(b *testing.B) {
	r, forks := crowd(b, "12", 10_000, 20)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ResolveStates(r.create, forks, r.graph, r.load, nil); err != nil {
			b.Fatal(err)
		}
	}
}
