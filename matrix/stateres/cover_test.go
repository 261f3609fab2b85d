package stateres

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"hansa/matrix"
)

// chained is a random auth graph with a cover: events of one key that cite the last one of a chain continue it.
type chained struct {
	ids    []matrix.EventID
	nodes  map[matrix.EventID]Node
	places map[matrix.EventID]Place
	at     map[Place]matrix.EventID
	links  map[int64][]Link
	reads  int
}

func newChained(r *rand.Rand, events, keys int) *chained {
	c := &chained{nodes: map[matrix.EventID]Node{}, places: map[matrix.EventID]Place{}, at: map[Place]matrix.EventID{}, links: map[int64][]Link{}}
	key := map[matrix.EventID]int{}
	tips := map[int64]int64{}
	linked := map[[2]int64]int64{}
	for i := range events {
		id := matrix.EventID(fmt.Sprintf("$%05d", i))
		k := r.IntN(keys)
		var n Node
		for range min(i, 1+r.IntN(4)) {
			a := c.ids[max(0, len(c.ids)-1-r.IntN(min(len(c.ids), 1+r.IntN(60))))]
			if !slices.Contains(n.AuthEvents, a) {
				n.AuthEvents = append(n.AuthEvents, a)
				n.Rank = max(n.Rank, c.nodes[a].Rank+1)
			}
		}
		p := Place{int64(i + 1), 1}
		for _, a := range n.AuthEvents {
			if b := c.places[a]; key[a] == k && tips[b.Chain] == b.Seq {
				p = Place{b.Chain, b.Seq + 1}
			}
		}
		tips[p.Chain] = p.Seq
		for _, a := range n.AuthEvents {
			to := c.places[a]
			if to.Chain == p.Chain || linked[[2]int64{p.Chain, to.Chain}] >= to.Seq {
				continue
			}
			linked[[2]int64{p.Chain, to.Chain}] = to.Seq
			c.links[p.Chain] = append(c.links[p.Chain], Link{p, to})
		}
		key[id], c.nodes[id], c.places[id], c.at[p] = k, n, p, id
		c.ids = append(c.ids, id)
	}
	return c
}

func (c *chained) graph(ids []matrix.EventID) (map[matrix.EventID]Node, error) {
	out := map[matrix.EventID]Node{}
	for _, id := range ids {
		out[id] = c.nodes[id]
	}
	return out, nil
}

func (c *chained) Places(ids []matrix.EventID) (map[matrix.EventID]Place, error) {
	out := map[matrix.EventID]Place{}
	for _, id := range ids {
		if p, ok := c.places[id]; ok {
			out[id] = p
		}
	}
	return out, nil
}

func (c *chained) Below(upto []Place) ([]Link, error) {
	var out []Link
	for _, p := range upto {
		for _, l := range c.links[p.Chain] {
			if l.From.Seq <= p.Seq { // no more than it has to
				out = append(out, l)
			}
		}
		c.reads++
	}
	return out, nil
}

func (c *chained) Events(ranges []Range) ([]matrix.EventID, error) {
	var out []matrix.EventID
	for _, r := range ranges {
		for s := r.First; s <= r.Last; s++ {
			out = append(out, c.at[Place{r.Chain, s}])
		}
	}
	return out, nil
}

func (c *chained) some(r *rand.Rand, n int) []matrix.EventID {
	var out []matrix.EventID
	for range n {
		if id := c.ids[r.IntN(len(c.ids))]; !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}

// The index gives the answers of the graph itself.
func TestChains_EqualTheGraph(t *testing.T) {
	t.Parallel()
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 7))
		c := newChained(r, 20+r.IntN(200), 1+r.IntN(12))
		var sets [][]matrix.EventID
		for range 2 + r.IntN(4) {
			sets = append(sets, c.some(r, r.IntN(6)))
		}
		agreed := c.some(r, r.IntN(5))
		whole := make([][]matrix.EventID, len(sets))
		for i := range sets {
			whole[i] = append(slices.Clone(sets[i]), agreed...)
		}
		want, err := AuthDifference(whole, nil, c.graph, 0)
		if err != nil {
			t.Fatal(err)
		}
		chains := NewChains(c, 0)
		var from []Place
		for _, id := range agreed {
			from = append(from, c.places[id])
		}
		reach, err := chains.Reach(from)
		if err != nil {
			t.Fatal(err)
		}
		got, err := chains.Difference(sets, func(p Place) (bool, error) { return reach[p.Chain] >= p.Seq, nil })
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("seed %d: difference of %v with %v in common is %v, %v; want %v", seed, sets, agreed, got, err, want)
		}
		conflicted := c.some(r, 1+r.IntN(6))
		want, err = ConflictedSubgraph(conflicted, c.graph, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got, err = NewChains(c, 0).Subgraph(conflicted); err != nil || !slices.Equal(got, want) {
			t.Fatalf("seed %d: subgraph of %v is %v, %v; want %v", seed, conflicted, got, err, want)
		}
	}
}

// A fork at the end of a long history costs what differs, and the index grows by at most one link for each auth event.
func TestA61_CoverIsLinear(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 1))
	c := newChained(r, 20_000, 40)
	edges, links := 0, 0
	for _, n := range c.nodes {
		edges += len(n.AuthEvents)
	}
	for _, l := range c.links {
		links += len(l)
	}
	if links > edges || len(c.places) != len(c.nodes) {
		t.Errorf("%d links and %d places for %d edges and %d events", links, len(c.places), edges, len(c.nodes))
	}
	_, err := NewChains(c, 10).Reach([]Place{c.places[c.ids[len(c.ids)-1]]})
	if err == nil {
		t.Error("a walk over many chains is not bounded")
	}
}

// Positions on the mainline by chains are those of a walk from event to event.
func TestChains_MainlineEqualsTheWalk(t *testing.T) {
	t.Parallel()
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 9))
		c := &chained{nodes: map[matrix.EventID]Node{}, places: map[matrix.EventID]Place{}, at: map[Place]matrix.EventID{}, links: map[int64][]Link{}}
		parent := map[matrix.EventID]matrix.EventID{}
		tips := map[int64]int64{}
		other := Place{1 << 40, 1} // a chain that is not one of power levels
		for i := range 2 + r.IntN(60) {
			id := matrix.EventID(fmt.Sprintf("$%05d", i))
			p := Place{int64(i + 1), 1}
			if i > 0 && r.IntN(20) > 0 {
				parent[id] = c.ids[max(0, i-1-r.IntN(min(i, 4)))]
				b := c.places[parent[id]]
				if tips[b.Chain] == b.Seq {
					p = Place{b.Chain, b.Seq + 1}
				} else {
					c.links[p.Chain] = append(c.links[p.Chain], Link{p, b})
				}
			}
			if r.IntN(2) == 0 {
				c.links[p.Chain] = append([]Link{{p, other}}, c.links[p.Chain]...)
			}
			tips[p.Chain] = p.Seq
			c.places[id], c.at[p] = p, id
			c.ids = append(c.ids, id)
		}
		top, list := c.ids[r.IntN(len(c.ids))], c.some(r, 10)
		at := map[matrix.EventID]int{}
		for id := top; id != ""; id = parent[id] {
			at[id] = len(at)
		}
		want := map[matrix.EventID]int{}
		for _, start := range list {
			for id := start; id != ""; id = parent[id] {
				if n, ok := at[id]; ok {
					want[start] = n
					break
				}
			}
		}
		got, err := NewChains(c, 0).Mainline(top, list, func(chain int64) (bool, error) { return chain != other.Chain, nil })
		if err != nil || !maps.Equal(got, want) {
			t.Fatalf("seed %d: %v on the mainline of %s are at %v, %v; want %v", seed, list, top, got, err, want)
		}
	}
}
