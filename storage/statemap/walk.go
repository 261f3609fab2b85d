package statemap

import (
	"fmt"

	"hansa/matrix"
	"hansa/matrix/event"
)

// Walk calls fn for every entry of the map, in no particular order, with one call of the loader per level.
func Walk(ld Loader, root Hash, fn func(event.StateKey, matrix.EventID)) error {
	todo := []Hash{root}
	if root == (Hash{}) {
		return nil
	}
	for len(todo) > 0 {
		data, err := ld(todo)
		if err != nil {
			return err
		}
		var next []Hash
		for _, h := range todo {
			d, ok := data[h]
			if !ok {
				return fmt.Errorf("%w: node %x is missing", ErrCorrupt, h[:8])
			}
			n, err := decode(d)
			if err != nil {
				return err
			}
			for i := range n.leaf {
				fn(event.StateKey{Type: n.leaf[i].typ, Key: n.leaf[i].skey}, n.leaf[i].event)
			}
			next = append(next, n.children...)
		}
		todo = next
	}
	return nil
}

// Difference is one key at which two maps do not agree; an absent entry is "".
type Difference struct {
	Key  event.StateKey
	A, B matrix.EventID
}

// Diff lists where the maps a and b differ. It reads only nodes that are not shared: its cost follows the changes, not the
// size of the maps.
func Diff(ld Loader, a, b Hash) ([]Difference, error) {
	if a == b {
		return nil, nil
	}
	left, right := map[event.StateKey]matrix.EventID{}, map[event.StateKey]matrix.EventID{}
	type pair struct{ a, b Hash }
	todo := []pair{{a, b}}
	for len(todo) > 0 {
		nodes, err := loadPairs(ld, todo, func(p pair) [2]Hash { return [2]Hash{p.a, p.b} })
		if err != nil {
			return nil, err
		}
		var next []pair
		for _, p := range todo {
			na, nb := nodes[p.a], nodes[p.b]
			collectLeaf(na, left)
			collectLeaf(nb, right)
			for s := uint(0); s < 1<<fanBits; s++ {
				var q pair
				if i, ok := na.child(s); ok {
					q.a = na.children[i]
				}
				if i, ok := nb.child(s); ok {
					q.b = nb.children[i]
				}
				if q.a != q.b {
					next = append(next, q)
				}
			}
		}
		todo = next
	}
	var out []Difference
	for k, id := range left {
		if other := right[k]; other != id {
			out = append(out, Difference{k, id, other})
		}
	}
	for k, id := range right {
		if _, ok := left[k]; !ok {
			out = append(out, Difference{k, "", id})
		}
	}
	return out, nil
}

func loadPairs[P any](ld Loader, todo []P, hashes func(P) [2]Hash) (map[Hash]*node, error) {
	nodes := map[Hash]*node{{}: {}}
	var want []Hash
	for _, p := range todo {
		for _, h := range hashes(p) {
			if _, ok := nodes[h]; !ok {
				nodes[h] = nil
				want = append(want, h)
			}
		}
	}
	data, err := ld(want)
	if err != nil {
		return nil, err
	}
	for _, h := range want {
		d, ok := data[h]
		if !ok {
			return nil, fmt.Errorf("%w: node %x is missing", ErrCorrupt, h[:8])
		}
		if nodes[h], err = decode(d); err != nil {
			return nil, err
		}
	}
	return nodes, nil
}

func collectLeaf(n *node, into map[event.StateKey]matrix.EventID) {
	for i := range n.leaf {
		into[event.StateKey{Type: n.leaf[i].typ, Key: n.leaf[i].skey}] = n.leaf[i].event
	}
}

// Small tells whether a map is a single leaf, or a branch with a few leaves below it: then all of it costs hardly more than one entry.
func Small(ld Loader, root Hash) (bool, error) {
	const most = 12 // leaves
	n, err := load(ld, root)
	if err != nil || n.children == nil {
		return err == nil, err
	}
	if len(n.children) > most {
		return false, nil
	}
	data, err := ld(n.children)
	for _, h := range n.children {
		if d := data[h]; len(d) == 0 || d[0] != tagLeaf {
			return false, err
		}
	}
	return err == nil, err
}
