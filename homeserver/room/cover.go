package room

import (
	"math"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/matrix/stateres"
	"hansa/storage"
	"hansa/storage/statemap"
)

const (
	// firstPending is the chain of the first event that is not stored yet. No position is that low.
	firstPending = math.MinInt64 / 2
	// abovePage is how many links are read at a time on the way up.
	abovePage = 256
	// aboveLimit bounds how many chains are looked at on the way up before all that the states agree on is followed down instead.
	aboveLimit = 2000
)

// cover is the index of auth chains as state resolution sees it: what is stored, and above it the events that are not stored yet, each of
// which is a chain of its own.
type cover struct {
	*fork
	room   matrix.RoomID
	chains *stateres.Chains
	places map[matrix.EventID]stateres.Place
	keys   map[int64]event.StateKey
	// unstored are the pending events that were placed, by the number of their chain.
	unstored []*storage.Event
	agreed   map[stateres.Place]bool // answers of common
	whole    stateres.Reach          // of all that the states agree on; nil until it is needed
	small    *bool                   // whether the states are so small that this is the cheapest; nil until it was found out
}

// Places implements stateres.Cover. What is pending may be stored by now: then its stored place counts, since other stored events lead there.
func (c *cover) Places(ids []matrix.EventID) (map[matrix.EventID]stateres.Place, error) {
	missing, err := c.place(ids)
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 { // they came before there was an index
		if err := c.s.DB.Update(c.ctx, func(tx *storage.Tx) error { return tx.IndexAuth(c.room) }); err != nil {
			return nil, err
		}
		if _, err := c.place(missing); err != nil {
			return nil, err
		}
	}
	out := make(map[matrix.EventID]stateres.Place, len(ids))
	for _, id := range ids {
		if p, ok := c.places[id]; ok {
			out[id] = p
		}
	}
	return out, nil
}

// place finds places that are not known yet, and returns the events that have none.
func (c *cover) place(ids []matrix.EventID) (missing []matrix.EventID, err error) {
	var want []matrix.EventID
	for _, id := range ids {
		if _, ok := c.places[id]; !ok {
			want = append(want, id)
		}
	}
	if err := c.load(want); err != nil {
		return nil, err
	}
	for _, id := range want {
		if _, ok := c.places[id]; ok {
			continue
		}
		p := c.pending[id]
		if p == nil {
			missing = append(missing, id)
			continue
		}
		chain := int64(firstPending + len(c.unstored))
		c.unstored = append(c.unstored, p)
		c.places[id] = stateres.Place{Chain: chain, Seq: 1}
		if p.StateKey != nil {
			c.keys[chain] = p.Key()
		}
	}
	return missing, nil
}

func (c *cover) load(ids []matrix.EventID) error {
	var want []matrix.EventID
	for _, id := range ids {
		if p, ok := c.s.graph.places.find(id); ok {
			c.places[id] = p
		} else {
			want = append(want, id)
		}
	}
	if len(want) == 0 {
		return nil
	}
	return c.s.DB.Read(c.ctx, func(tx *storage.Tx) error {
		found, err := tx.LoadAuthPlaces(want)
		for id, p := range found {
			c.places[id] = stateres.Place(p)
			c.s.graph.place(id, stateres.Place(p))
		}
		return err
	})
}

func (c *cover) unstoredAt(chain int64) *storage.Event {
	if i := chain - firstPending; i >= 0 && i < int64(len(c.unstored)) {
		return c.unstored[i]
	}
	return nil
}

// Below implements stateres.Cover.
func (c *cover) Below(places []stateres.Place) ([]stateres.Link, error) {
	var stored []int64
	upto := map[int64]int64{}
	var out []stateres.Link
	for _, p := range places {
		e := c.unstoredAt(p.Chain)
		if e == nil {
			if known, ok := c.s.graph.below.find(p.Chain); ok && known.upto >= p.Seq {
				out = append(out, known.links...)
			} else {
				stored, upto[p.Chain] = append(stored, p.Chain), p.Seq
			}
			continue
		}
		links, err := c.linksOf(e)
		if err != nil {
			return nil, err
		}
		out = append(out, links...)
	}
	if len(stored) == 0 {
		return out, nil
	}
	err := c.s.DB.Read(c.ctx, func(tx *storage.Tx) error {
		links, err := tx.LoadAuthBelow(stored)
		if err != nil {
			return err
		}
		byChain := make(map[int64][]stateres.Link, len(stored))
		for _, l := range links {
			byChain[l.From.Chain] = append(byChain[l.From.Chain], link(l))
		}
		for _, chain := range stored {
			out = append(out, byChain[chain]...)
			c.s.graph.below.put(chain, chainLinks{upto[chain], byChain[chain]})
		}
		return nil
	})
	return out, err
}

func link(l storage.AuthLink) stateres.Link {
	return stateres.Link{From: stateres.Place(l.From), To: stateres.Place(l.To)}
}

// linksOf are the links of an event that is not stored yet.
func (c *cover) linksOf(e *storage.Event) ([]stateres.Link, error) {
	places, err := c.Places(e.AuthEvents)
	if err != nil {
		return nil, err
	}
	out := make([]stateres.Link, 0, len(places))
	for _, to := range places {
		out = append(out, stateres.Link{From: c.places[e.ID], To: to})
	}
	return out, nil
}

// Events implements stateres.Cover.
func (c *cover) Events(ranges []stateres.Range) ([]matrix.EventID, error) {
	var out []matrix.EventID
	var stored []storage.AuthRange
	for _, r := range ranges {
		if e := c.unstoredAt(r.Chain); e != nil {
			out = append(out, e.ID)
		} else if ids, ok := c.s.graph.inRange(r); ok {
			out = append(out, ids...)
		} else {
			stored = append(stored, storage.AuthRange(r))
		}
	}
	if len(stored) == 0 {
		return out, nil
	}
	err := c.s.DB.Read(c.ctx, func(tx *storage.Tx) error {
		found, err := tx.LoadAuthRanges(stored)
		out = append(out, found...)
		return err
	})
	return out, err
}

// common tells whether an event belongs to the part on which all states agree, or is in the auth chain of something in it: then it is in
// all auth chains. It looks from the event towards what cites it, because that is usually one step, and by chains: each is about one entry
// of the state, so that one look tells whether the agreed part has anything in it.
func (c *cover) common(start stateres.Place) (bool, error) {
	if yes, ok := c.agreed[start]; ok {
		return yes, nil
	}
	yes, err := c.search(start)
	if err == nil {
		c.agreed[start] = yes
	}
	return yes, err
}

func (c *cover) search(start stateres.Place) (bool, error) {
	if c.whole != nil {
		return c.whole[start.Chain] >= start.Seq, nil
	}
	if c.small == nil {
		small, err := statemap.Small(c.s.loader(c.ctx), c.roots[0])
		if err != nil {
			return false, err
		}
		c.small = &small
	}
	if *c.small {
		return c.fromBelow(start)
	}
	// All that is pending has to be placed before anybody can ask what cites an event.
	for id, p := range c.pending {
		if p.StateKey != nil && p.Flags&storage.Rejected == 0 {
			if _, err := c.Places([]matrix.EventID{id}); err != nil {
				return false, err
			}
		}
	}
	lowest := stateres.Reach{start.Chain: start.Seq}
	for todo := []int64{start.Chain}; len(todo) > 0; {
		if len(lowest) > aboveLimit {
			return c.fromBelow(start)
		}
		if yes, err := c.agreedIn(todo, lowest); err != nil || yes {
			return yes, err
		}
		var next []int64
		for _, chain := range todo {
			found, yes, err := c.above(stateres.Place{Chain: chain, Seq: lowest[chain]}, lowest)
			if err != nil || yes {
				return yes, err
			}
			next = append(next, found...)
		}
		todo = next
	}
	return false, nil
}

// isPower tells whether a chain is one of power levels.
func (c *cover) isPower(chain int64) (bool, error) {
	if err := c.findKeys([]int64{chain}); err != nil {
		return false, err
	}
	return c.keys[chain] == event.StateKey{Type: auth.TypePowerLevels}, nil
}

// findKeys finds out what chains are about.
func (c *cover) findKeys(chains []int64) error {
	var unknown []int64
	for _, chain := range chains {
		if _, ok := c.keys[chain]; ok {
			continue
		}
		if k, ok := c.s.graph.keys.find(chain); ok {
			c.keys[chain] = k
		} else {
			unknown = append(unknown, chain)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	return c.s.DB.Read(c.ctx, func(tx *storage.Tx) error {
		found, err := tx.LoadAuthKeys(unknown)
		for chain, k := range found {
			c.keys[chain] = k
			c.s.graph.keys.put(chain, k)
		}
		return err
	})
}

// agreedIn tells whether the agreed part of the states has an event in one of the chains, at the given place or beyond.
func (c *cover) agreedIn(chains []int64, lowest stateres.Reach) (bool, error) {
	if err := c.findKeys(chains); err != nil {
		return false, err
	}
	keys := make([]event.StateKey, 0, len(chains))
	for _, chain := range chains {
		if k, ok := c.keys[chain]; ok && !c.fork.keys[k] {
			keys = append(keys, k)
		}
	}
	agreed, err := statemap.GetMany(c.s.loader(c.ctx), c.roots[0], keys)
	if err != nil || len(agreed) == 0 {
		return false, err
	}
	ids := make([]matrix.EventID, 0, len(agreed))
	for _, id := range agreed {
		ids = append(ids, id)
	}
	places, err := c.Places(ids)
	if err != nil {
		return false, err
	}
	for _, p := range places {
		if low, ok := lowest[p.Chain]; ok && p.Seq >= low {
			return true, nil
		}
	}
	return false, nil
}

// above finds the chains with events that cite a place or what is beyond it in its chain, and notes the lowest of those events. It reports
// true as soon as one belongs to the agreed part.
func (c *cover) above(to stateres.Place, lowest stateres.Reach) (next []int64, yes bool, err error) {
	note := func(from stateres.Place) {
		if have, ok := lowest[from.Chain]; !ok || from.Seq < have {
			lowest[from.Chain] = from.Seq
			next = append(next, from.Chain)
		}
	}
	for _, e := range c.unstored {
		links, err := c.linksOf(e)
		if err != nil {
			return nil, false, err
		}
		for _, l := range links {
			if l.To.Chain == to.Chain && l.To.Seq >= to.Seq {
				note(l.From)
			}
		}
	}
	if c.unstoredAt(to.Chain) != nil {
		return next, false, nil
	}
	var after *storage.AuthLink
	for {
		var page []storage.AuthLink
		err := c.s.DB.Read(c.ctx, func(tx *storage.Tx) (err error) {
			page, err = tx.LoadAuthAbove(storage.AuthPlace(to), after, abovePage)
			return err
		})
		if err != nil {
			return nil, false, err
		}
		from := len(next)
		for _, l := range page {
			note(stateres.Place(l.From))
		}
		if len(page) < abovePage || len(lowest) > aboveLimit {
			return next, false, nil
		}
		if yes, err := c.agreedIn(next[from:], lowest); err != nil || yes {
			return nil, yes, err
		}
		last := page[len(page)-1]
		after = &last
	}
}

// fromBelow follows all that the states agree on down, once.
func (c *cover) fromBelow(start stateres.Place) (bool, error) {
	var ids []matrix.EventID
	err := statemap.Walk(c.s.loader(c.ctx), c.roots[0], func(k event.StateKey, id matrix.EventID) {
		if !c.fork.keys[k] {
			ids = append(ids, id)
		}
	})
	if err != nil {
		return false, err
	}
	places, err := c.Places(ids)
	if err != nil {
		return false, err
	}
	from := make([]stateres.Place, 0, len(places))
	for _, p := range places {
		from = append(from, p)
	}
	if c.whole, err = c.chains.Reach(from); err != nil {
		return false, err
	}
	return c.whole[start.Chain] >= start.Seq, nil
}
