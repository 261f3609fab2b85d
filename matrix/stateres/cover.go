package stateres

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"hansa/matrix"
)

// Place is where an event stands in a chain cover of the auth graph: each event of a chain has all before it in its auth chain.
type Place struct{ Chain, Seq int64 }

// Link says that the event at one place cites the event at another, in another chain. Of the links from one chain to another those may be
// missing that lead no further than one from an earlier event.
type Link struct{ From, To Place }

// Range is a part of a chain, both ends included.
type Range struct{ Chain, First, Last int64 }

// Cover is an index of the auth graph by chains. Its answers depend on chains and links, of which there are few, and not on how long the
// chains are. It is an interface because the index lives in a database.
type Cover interface {
	// Places returns the places of events. One that is missing ends the resolution with a MissingError.
	Places([]matrix.EventID) (map[matrix.EventID]Place, error)
	// Below returns the links that leave chains at the given places, one a chain, and before them; it may return later ones, too.
	Below(upto []Place) ([]Link, error)
	// Events returns the events of parts of chains, at most one part of each chain.
	Events([]Range) ([]matrix.EventID, error)
}

// Reach is how far up each chain a set of events reaches: the events themselves and their auth chains.
type Reach map[int64]int64

// Chains is the work of one resolution on a cover. It remembers the links that it has read.
type Chains struct {
	cover Cover
	limit int
	below map[int64][]Link
	upto  map[int64]int64 // up to where the links of a chain are known
}

// NewChains returns a Chains that reads at most limit chains; 0 stands for DefaultLimit.
func NewChains(cover Cover, limit int) *Chains {
	if limit <= 0 {
		limit = DefaultLimit
	}
	return &Chains{cover: cover, limit: limit, below: make(map[int64][]Link), upto: make(map[int64]int64)}
}

func (c *Chains) places(ids []matrix.EventID) (map[matrix.EventID]Place, error) {
	places, err := c.cover.Places(ids)
	if err != nil {
		return nil, fmt.Errorf("find %d places of the auth graph: %w", len(ids), err)
	}
	var missing []matrix.EventID
	for _, id := range ids {
		if _, ok := places[id]; !ok {
			missing = append(missing, id)
		}
	}
	if len(missing) > 0 {
		return nil, &MissingError{missing}
	}
	return places, nil
}

// Reach follows places down the graph.
func (c *Chains) Reach(from []Place) (Reach, error) {
	reach := make(Reach)
	done := make(Reach) // up to where the links of a chain have been followed
	var todo []int64
	raise := func(p Place) {
		if p.Seq > reach[p.Chain] {
			reach[p.Chain] = p.Seq
			todo = append(todo, p.Chain)
		}
	}
	for _, p := range from {
		raise(p)
	}
	for len(todo) > 0 {
		now := todo
		todo = nil
		places := make([]Place, len(now))
		for i, chain := range now {
			places[i] = Place{chain, reach[chain]}
		}
		if err := c.read(places); err != nil {
			return nil, err
		}
		for _, chain := range now {
			low, high := done[chain], min(reach[chain], c.upto[chain]) // it may have been raised since its links were read
			if low >= high {
				continue
			}
			done[chain] = high
			for _, l := range c.below[chain] {
				if l.From.Seq > low && l.From.Seq <= high {
					raise(l.To)
				}
			}
		}
	}
	return reach, nil
}

// read makes the links of chains known, up to the given places.
func (c *Chains) read(places []Place) error {
	var want []Place
	for _, p := range places {
		if c.upto[p.Chain] < p.Seq {
			c.upto[p.Chain], c.below[p.Chain] = p.Seq, nil
			want = append(want, p)
		}
	}
	if len(want) == 0 {
		return nil
	}
	if len(c.below) > c.limit {
		return fmt.Errorf("%w: more than %d chains", ErrLimit, c.limit)
	}
	links, err := c.cover.Below(want)
	if err != nil {
		return fmt.Errorf("load the links of %d chains of the auth graph: %w", len(want), err)
	}
	for _, l := range links {
		if l.From.Chain == l.To.Chain {
			return fmt.Errorf("%w: a link of chain %d leads to itself", ErrGraph, l.From.Chain)
		}
		c.below[l.From.Chain] = append(c.below[l.From.Chain], l)
	}
	return nil
}

// Difference is AuthDifference by a cover. common tells of an event whether it belongs to the part that is the same in all sets, or to the
// auth chains of that part; where it does, so does everything before it in its chain.
//
// spec: rooms/v2#definitions
func (c *Chains) Difference(sets [][]matrix.EventID, common func(Place) (bool, error)) ([]matrix.EventID, error) {
	all := make([]matrix.EventID, 0, len(sets))
	for _, set := range sets {
		all = append(all, set...)
	}
	places, err := c.places(all)
	if err != nil {
		return nil, err
	}
	low, high := Reach{}, Reach{}
	for i, set := range sets {
		from := make([]Place, len(set))
		for k, id := range set {
			from[k] = places[id]
		}
		reach, err := c.Reach(from)
		if err != nil {
			return nil, err
		}
		for chain := range low {
			low[chain] = min(low[chain], reach[chain])
		}
		for chain, seq := range reach {
			if _, ok := high[chain]; !ok && i == 0 {
				low[chain] = seq
			}
			high[chain] = max(high[chain], seq)
		}
	}
	var ranges []Range
	for chain, last := range high {
		first := low[chain] + 1
		if first > last {
			continue
		}
		if first, err = above(chain, first, last, common); err != nil {
			return nil, err
		}
		if first <= last {
			ranges = append(ranges, Range{chain, first, last})
		}
	}
	return c.events(ranges)
}

// above finds the first event of a part of a chain that is not common, last+1 where all are.
func above(chain, first, last int64, common func(Place) (bool, error)) (int64, error) {
	if common == nil {
		return first, nil
	}
	yes, err := common(Place{chain, last})
	if err != nil || yes {
		return last + 1, err
	}
	for first < last {
		middle := first + (last-first)/2
		yes, err := common(Place{chain, middle})
		switch {
		case err != nil:
			return 0, err
		case yes:
			first = middle + 1
		default:
			last = middle
		}
	}
	return first, nil
}

func (c *Chains) events(ranges []Range) ([]matrix.EventID, error) {
	if len(ranges) == 0 {
		return nil, nil
	}
	count := int64(0)
	for _, r := range ranges {
		count += r.Last - r.First + 1
	}
	if count > int64(c.limit) {
		return nil, fmt.Errorf("%w: more than %d", ErrLimit, c.limit)
	}
	slices.SortFunc(ranges, func(a, b Range) int { return cmp.Compare(a.Chain, b.Chain) })
	ids, err := c.cover.Events(ranges)
	if err != nil {
		return nil, err
	}
	if int64(len(ids)) != count {
		return nil, errors.Join(ErrGraph, fmt.Errorf("%d events stand where %d should", len(ids), count))
	}
	slices.Sort(ids)
	return ids, nil
}

// Subgraph is ConflictedSubgraph by a cover.
//
// spec: rooms/v12#definitions
func (c *Chains) Subgraph(conflicted []matrix.EventID) ([]matrix.EventID, error) {
	places, err := c.places(conflicted)
	if err != nil {
		return nil, err
	}
	from := make([]Place, 0, len(places))
	up := make(Reach) // the first event of each chain that reaches one of the given events
	for _, id := range conflicted {
		p := places[id]
		from = append(from, p)
		if have, ok := up[p.Chain]; !ok || p.Seq < have {
			up[p.Chain] = p.Seq
		}
	}
	down, err := c.Reach(from)
	if err != nil {
		return nil, err
	}
	into := make(map[int64][]Link)
	for chain, high := range down {
		for _, l := range c.below[chain] {
			if l.From.Seq <= high {
				into[l.To.Chain] = append(into[l.To.Chain], l)
			}
		}
	}
	todo := make([]int64, 0, len(up))
	for chain := range up {
		todo = append(todo, chain)
	}
	for len(todo) > 0 {
		chain := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, l := range into[chain] {
			if l.To.Seq < up[chain] {
				continue
			}
			if have, ok := up[l.From.Chain]; !ok || l.From.Seq < have {
				up[l.From.Chain] = l.From.Seq
				todo = append(todo, l.From.Chain)
			}
		}
	}
	var ranges []Range
	for chain, first := range up {
		if last := down[chain]; first <= last {
			ranges = append(ranges, Range{chain, first, last})
		}
	}
	return c.events(ranges)
}

// Mainline places power levels events on the mainline of another one: how many steps it is from top back to the first event of the mainline
// that each of them is, or leads back to. One that leads to none has no entry. isPower tells whether a chain is one of power levels. In such
// a chain each event cites the one before it, so that only the ends of chains are looked at.
//
// spec: rooms/v2#definitions
func (c *Chains) Mainline(top matrix.EventID, list []matrix.EventID, isPower func(chain int64) (bool, error)) (map[matrix.EventID]int, error) {
	places, err := c.places(append([]matrix.EventID{top}, list...))
	if err != nil {
		return nil, err
	}
	type segment struct {
		last int64 // the latest event of the chain that is on the mainline
		at   int   // its position
	}
	line := make(map[int64]segment)
	steps := 0
	for p, ok := places[top], true; ok; {
		if _, loop := line[p.Chain]; loop {
			return nil, fmt.Errorf("%w: the power levels of chain %d lead back to it", ErrGraph, p.Chain)
		}
		line[p.Chain] = segment{p.Seq, steps}
		steps += int(p.Seq)
		if p, ok, err = c.powerBelow(p.Chain, isPower); err != nil {
			return nil, err
		}
	}
	out := make(map[matrix.EventID]int, len(list))
	for _, id := range list {
		seen := make(map[int64]bool)
		for p, ok := places[id], true; ok && !seen[p.Chain]; {
			if s, on := line[p.Chain]; on {
				out[id] = s.at + int(s.last-min(p.Seq, s.last))
				break
			}
			seen[p.Chain] = true
			if p, ok, err = c.powerBelow(p.Chain, isPower); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// powerBelow is the power levels event that the first one of a chain cites.
func (c *Chains) powerBelow(chain int64, isPower func(chain int64) (bool, error)) (Place, bool, error) {
	if err := c.read([]Place{{chain, 1}}); err != nil {
		return Place{}, false, err
	}
	for _, l := range c.below[chain] {
		if l.From.Seq != 1 {
			continue
		}
		yes, err := isPower(l.To.Chain)
		if err != nil || yes {
			return l.To, yes, err
		}
	}
	return Place{}, false, nil
}
