package stateres

import (
	"container/heap"
	"errors"
	"fmt"
	"slices"

	"hansa/matrix"
)

// ErrGraph is wrapped where ranks are not above those of the auth events, or where the auth graph has a cycle.
var ErrGraph = errors.New("stateres: the auth graph is not in order")

// Node is one event of the auth graph.
type Node struct {
	AuthEvents []matrix.EventID
	// Rank is greater than the rank of every auth event: 1 + the greatest of them, 0 where there are none. It is a number
	// that never changes, best stored with the event; it lets a walk stop where the forks have met.
	Rank int64
}

// Graph finds nodes of the auth graph. Nodes may come that were not asked for.
type Graph func([]matrix.EventID) (map[matrix.EventID]Node, error)

// Rank is the rank of an event, of the nodes of its auth events.
func Rank(authEvents ...Node) int64 {
	rank := int64(0)
	for _, n := range authEvents {
		rank = max(rank, n.Rank+1)
	}
	return rank
}

// AuthDifference finds the events that are in the auth chains of some state sets but not of all. A set is given by
// the IDs of its events. It is enough to give the events in which the sets differ if common tells which
// events belong to the part that is the same in all sets, or to the auth chains of that part; a nil common means that
// the sets are whole.
//
// differs: an event of a state set counts as part of that set's auth chain, as in all deployed servers: what is in all
// states is not in the difference, even if it authorises something in one state only.
//
// spec: rooms/v2#definitions
func AuthDifference(
	sets [][]matrix.EventID, common func([]matrix.EventID) (map[matrix.EventID]bool, error), graph Graph, limit int,
) ([]matrix.EventID, error) {
	if len(sets) > 64 {
		return nil, fmt.Errorf("%w: %d state sets, the most are 64", ErrLimit, len(sets))
	}
	full := ^uint64(0) >> (64 - len(sets))
	first := make(map[matrix.EventID]uint64)
	for i, set := range sets {
		for _, id := range set {
			first[id] |= 1 << i
		}
	}
	w := newWalk(graph, limit)
	partial := 0
	var difference []matrix.EventID
	add := func(reached map[matrix.EventID]uint64) error {
		fresh, err := w.discover(keysOf(reached))
		if err != nil {
			return err
		}
		var shared map[matrix.EventID]bool
		if common != nil && len(fresh) > 0 {
			if shared, err = common(fresh); err != nil {
				return fmt.Errorf("find common events: %w", err)
			}
		}
		for _, id := range fresh {
			partial++
			if shared[id] {
				reached[id] = full
			}
		}
		for id, bits := range reached {
			n := w.nodes[id]
			if n.bits != full && n.bits|bits == full {
				partial--
			}
			n.bits |= bits
		}
		return nil
	}
	if err := add(first); err != nil {
		return nil, err
	}
	for partial > 0 {
		reached := make(map[matrix.EventID]uint64)
		for _, n := range w.popLevel() {
			if n.bits != full {
				partial--
				difference = append(difference, n.id)
			}
			for _, a := range n.AuthEvents {
				reached[a] |= n.bits
			}
		}
		if err := add(reached); err != nil {
			return nil, err
		}
	}
	slices.Sort(difference)
	return difference, nil
}

// ConflictedSubgraph finds every event that lies on a path of auth events between two of the given events, and these.
//
// spec: rooms/v12#definitions
func ConflictedSubgraph(conflicted []matrix.EventID, graph Graph, limit int) ([]matrix.EventID, error) {
	w := newWalk(graph, limit)
	if _, err := w.discover(conflicted); err != nil {
		return nil, err
	}
	lowest := int64(0)
	for i, id := range conflicted {
		n := w.nodes[id]
		n.bits = 1
		if i == 0 || n.Rank < lowest {
			lowest = n.Rank
		}
	}
	// Down: what the given events reach, as far as it can still lead to one that is not found yet.
	var order []*walkNode
	for w.open.Len() > 0 {
		level := w.popLevel()
		order = append(order, level...)
		if level[0].Rank <= lowest+1 {
			continue
		}
		var next []matrix.EventID
		for _, n := range level {
			next = append(next, n.AuthEvents...)
		}
		if _, err := w.discover(next); err != nil {
			return nil, err
		}
	}
	// Up: which of it leads to one of them.
	var subgraph []matrix.EventID
	for _, n := range slices.Backward(order) {
		for _, a := range n.AuthEvents {
			if below := w.nodes[a]; below != nil {
				n.bits |= below.bits
			}
		}
		if n.bits != 0 {
			subgraph = append(subgraph, n.id)
		}
	}
	slices.Sort(subgraph)
	return subgraph, nil
}

// Ranked is a Graph for callers that have no stored ranks: it walks the whole auth chains of ids and counts ranks itself.
// authEvents finds the auth events of events; a missing one is a MissingError.
func Ranked(
	ids []matrix.EventID, authEvents func([]matrix.EventID) (map[matrix.EventID][]matrix.EventID, error), limit int,
) (Graph, error) {
	if limit <= 0 {
		limit = DefaultLimit
	}
	edges := make(map[matrix.EventID][]matrix.EventID)
	for next := ids; len(next) > 0; {
		found, err := authEvents(next)
		if err != nil {
			return nil, fmt.Errorf("load auth events of %d events: %w", len(next), err)
		}
		var missing []matrix.EventID
		wanted := make(map[matrix.EventID]struct{})
		for _, id := range next {
			list, ok := found[id]
			if !ok {
				missing = append(missing, id)
			}
			edges[id] = list
		}
		if len(missing) > 0 {
			return nil, &MissingError{missing}
		}
		for _, id := range next {
			for _, a := range edges[id] {
				if _, known := edges[a]; !known {
					wanted[a] = struct{}{}
				}
			}
		}
		if len(edges)+len(wanted) > limit {
			return nil, fmt.Errorf("%w: more than %d", ErrLimit, limit)
		}
		next = keysOf(wanted)
	}
	return rank(edges)
}

// rank counts ranks from the roots upwards.
func rank(edges map[matrix.EventID][]matrix.EventID) (Graph, error) {
	nodes := make(map[matrix.EventID]Node, len(edges))
	waits := make(map[matrix.EventID]int, len(edges))
	cited := make(map[matrix.EventID][]matrix.EventID, len(edges))
	var free []matrix.EventID
	for id, list := range edges {
		nodes[id] = Node{AuthEvents: list}
		waits[id] = len(list)
		for _, a := range list {
			cited[a] = append(cited[a], id)
		}
		if len(list) == 0 {
			free = append(free, id)
		}
	}
	done := 0
	for ; len(free) > 0; done++ {
		id := free[len(free)-1]
		free = free[:len(free)-1]
		for _, c := range cited[id] {
			n := nodes[c]
			n.Rank = max(n.Rank, nodes[id].Rank+1)
			nodes[c] = n
			if waits[c]--; waits[c] == 0 {
				free = append(free, c)
			}
		}
	}
	if done < len(nodes) {
		return nil, fmt.Errorf("%w: a cycle of auth events", ErrGraph)
	}
	return func([]matrix.EventID) (map[matrix.EventID]Node, error) { return nodes, nil }, nil
}

func keysOf[V any](m map[matrix.EventID]V) []matrix.EventID {
	ids := make([]matrix.EventID, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	return ids
}

// walk goes down the auth graph, the highest rank first, so that a node is reached from everywhere before it is left.
type walk struct {
	graph Graph
	limit int
	nodes map[matrix.EventID]*walkNode
	open  walkHeap
	// level is the rank that was taken last; everything found later must be below it.
	level   int64
	started bool
}

type walkNode struct {
	Node
	id   matrix.EventID
	bits uint64
}

func newWalk(graph Graph, limit int) *walk {
	if limit <= 0 {
		limit = DefaultLimit
	}
	return &walk{graph: graph, limit: limit, nodes: make(map[matrix.EventID]*walkNode)}
}

// discover loads the nodes that are new and returns their IDs.
func (w *walk) discover(ids []matrix.EventID) ([]matrix.EventID, error) {
	var fresh []matrix.EventID
	for _, id := range ids {
		if w.nodes[id] == nil {
			w.nodes[id] = &walkNode{id: id}
			fresh = append(fresh, id)
		} else if n := w.nodes[id]; w.started && n.Rank >= w.level {
			return nil, fmt.Errorf("%w: %s has rank %d below %d", ErrGraph, id, n.Rank, w.level)
		}
	}
	if len(fresh) == 0 {
		return nil, nil
	}
	if len(w.nodes) > w.limit {
		return nil, fmt.Errorf("%w: more than %d", ErrLimit, w.limit)
	}
	found, err := w.graph(fresh)
	if err != nil {
		return nil, fmt.Errorf("load %d nodes of the auth graph: %w", len(fresh), err)
	}
	var missing []matrix.EventID
	for _, id := range fresh {
		node, ok := found[id]
		if !ok {
			missing = append(missing, id)
			continue
		}
		if w.started && node.Rank >= w.level {
			return nil, fmt.Errorf("%w: %s has rank %d below %d", ErrGraph, id, node.Rank, w.level)
		}
		n := w.nodes[id]
		n.Node = node
		heap.Push(&w.open, n)
	}
	if len(missing) > 0 {
		return nil, &MissingError{missing}
	}
	return fresh, nil
}

// popLevel takes all open nodes of the highest rank.
func (w *walk) popLevel() []*walkNode {
	if w.open.Len() == 0 {
		return nil
	}
	w.level, w.started = w.open[0].Rank, true
	var level []*walkNode
	for w.open.Len() > 0 && w.open[0].Rank == w.level {
		if n, ok := heap.Pop(&w.open).(*walkNode); ok {
			level = append(level, n)
		}
	}
	return level
}

type walkHeap []*walkNode

func (h walkHeap) Len() int           { return len(h) }
func (h walkHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h walkHeap) Less(i, j int) bool { return h[i].Rank > h[j].Rank }

// Push implements heap.Interface.
func (h *walkHeap) Push(x any) {
	if n, ok := x.(*walkNode); ok {
		*h = append(*h, n)
	}
}

// Pop implements heap.Interface.
func (h *walkHeap) Pop() any {
	last := len(*h) - 1
	n := (*h)[last]
	*h = (*h)[:last]
	return n
}
