package stateres

import (
	"cmp"
	"container/heap"
	"slices"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
)

// ReverseTopologicalPowerOrder sorts events so that each one comes after those of its auth events that are in the list;
// among the free ones the higher level of the sender comes first, then the earlier timestamp, then the smaller ID. Events
// on a cycle, which only room versions 1 and 2 can have, are left out.
//
// spec: rooms/v2#definitions
func ReverseTopologicalPowerOrder(events []*event.Event, level func(*event.Event) auth.Level) []*event.Event {
	nodes := make(map[matrix.EventID]*powerNode, len(events))
	for _, ev := range events {
		nodes[ev.ID] = &powerNode{ev: ev, level: level(ev)}
	}
	var free powerHeap
	for _, n := range nodes {
		seen := make(map[matrix.EventID]struct{}, len(n.ev.AuthEvents))
		for _, id := range n.ev.AuthEvents {
			a := nodes[id]
			if _, dup := seen[id]; dup || a == nil {
				continue
			}
			seen[id] = struct{}{}
			a.cited = append(a.cited, n)
			n.waits++
		}
		if n.waits == 0 {
			free = append(free, n)
		}
	}
	heap.Init(&free)
	sorted := make([]*event.Event, 0, len(nodes))
	for free.Len() > 0 {
		n, _ := heap.Pop(&free).(*powerNode)
		sorted = append(sorted, n.ev)
		for _, c := range n.cited {
			if c.waits--; c.waits == 0 {
				heap.Push(&free, c)
			}
		}
	}
	return sorted
}

type powerNode struct {
	ev    *event.Event
	level auth.Level
	waits int
	cited []*powerNode
}

type powerHeap []*powerNode

func (h powerHeap) Len() int      { return len(h) }
func (h powerHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h powerHeap) Less(i, j int) bool {
	a, b := h[i], h[j]
	return cmp.Or(-cmp.Compare(a.level, b.level), byTime(a.ev, b.ev)) < 0
}

// Push implements heap.Interface.
func (h *powerHeap) Push(x any) {
	if n, ok := x.(*powerNode); ok {
		*h = append(*h, n)
	}
}

// Pop implements heap.Interface.
func (h *powerHeap) Pop() any {
	last := len(*h) - 1
	n := (*h)[last]
	*h = (*h)[:last]
	return n
}

// byTime compares by timestamp, then by ID: the tie-breaker of both orders.
func byTime(a, b *event.Event) int {
	return cmp.Or(cmp.Compare(a.OriginServerTS, b.OriginServerTS), cmp.Compare(a.ID, b.ID))
}

// MainlineOrder sorts events by mainline position, the oldest part of the mainline (the greatest position) first, then
// by timestamp, then by ID.
//
// spec: rooms/v2#definitions
func MainlineOrder(events []*event.Event, position func(*event.Event) int) []*event.Event {
	type placed struct {
		ev *event.Event
		at int
	}
	list := make([]placed, len(events))
	for i, ev := range events {
		list[i] = placed{ev, position(ev)}
	}
	slices.SortFunc(list, func(a, b placed) int {
		return cmp.Or(cmp.Compare(b.at, a.at), byTime(a.ev, b.ev))
	})
	sorted := make([]*event.Event, len(list))
	for i, p := range list {
		sorted[i] = p.ev
	}
	return sorted
}
