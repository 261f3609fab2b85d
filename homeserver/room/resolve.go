package room

import (
	"context"
	"fmt"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/matrix/stateres"
	"hansa/storage"
	"hansa/storage/statemap"
)

// commonLimit bounds how many events are looked at to find out whether one event belongs to the agreed part of a fork.
const commonLimit = 20000

// fork is several states of one room that have to become one. It is fed to state resolution as what differs, never whole.
type fork struct {
	s         *Service
	ctx       context.Context // of one call of resolve
	roots     []statemap.Hash
	keys      map[event.StateKey]bool // in which the states differ
	events    map[matrix.EventID]*storage.Event
	agreement map[matrix.EventID]bool // answers of common
	pending   *storage.Event
	failed    error // of a look-up that could not return it
}

// resolve makes one state of several. It returns its root and the nodes that are new. pending is an event that may be part of the
// states and is not stored yet, or nil.
//
// spec: server-server-api#room-state-resolution
func (s *Service) resolve(ctx context.Context, create *event.Event, roots []statemap.Hash, pending *storage.Event) (statemap.Hash, []statemap.Node, error) {
	distinct := roots[:1:1]
	for _, r := range roots[1:] {
		if r != roots[0] {
			distinct = append(distinct, r)
		}
	}
	if len(distinct) == 1 {
		return roots[0], nil, nil
	}
	f := &fork{s: s, ctx: ctx, roots: distinct, keys: map[event.StateKey]bool{}, events: map[matrix.EventID]*storage.Event{}, agreement: map[matrix.EventID]bool{}}
	if pending != nil {
		f.pending, f.events[pending.ID] = pending, pending
	}
	c, err := f.conflict(create)
	if err != nil {
		return statemap.Hash{}, nil, err
	}
	resolved, err := stateres.Resolve(*c)
	if f.failed != nil {
		err = f.failed
	}
	if err != nil {
		return statemap.Hash{}, nil, fmt.Errorf("resolve state: %w", err)
	}
	var changes []statemap.Change
	for k := range f.keys {
		changes = append(changes, statemap.Change{Key: k, ID: resolved[k]})
	}
	for k, id := range resolved {
		if !f.keys[k] && f.unconflicted(k) == "" {
			changes = append(changes, statemap.Change{Key: k, ID: id})
		}
	}
	root, nodes, err := statemap.Put(s.loader(ctx), distinct[0], changes)
	for _, n := range nodes {
		s.nodes.put(n.Hash, n.Data)
	}
	return root, nodes, err
}

func (f *fork) conflict(create *event.Event) (*stateres.Conflict, error) {
	ld := f.s.loader(f.ctx)
	for _, r := range f.roots[1:] {
		ds, err := statemap.Diff(ld, f.roots[0], r)
		if err != nil {
			return nil, err
		}
		for _, d := range ds {
			f.keys[d.Key] = true
		}
	}
	keys := make([]event.StateKey, 0, len(f.keys))
	for k := range f.keys {
		keys = append(keys, k)
	}
	conflicted := map[event.StateKey][]matrix.EventID{}
	sets := make([][]matrix.EventID, len(f.roots))
	seen := map[matrix.EventID]bool{}
	var all []matrix.EventID
	for i, r := range f.roots {
		at, err := statemap.GetMany(ld, r, keys)
		if err != nil {
			return nil, err
		}
		for k, id := range at {
			sets[i] = append(sets[i], id)
			if !seen[id] {
				seen[id] = true
				all = append(all, id)
				conflicted[k] = append(conflicted[k], id)
			}
		}
	}
	c := &stateres.Conflict{Version: create.Version, Create: create, Conflicted: conflicted, Unconflicted: f.unconflicted, Events: f.load, Rejected: f.rejected}
	var err error
	if create.Version.StateRes != matrix.StateResV1 {
		if c.AuthDifference, err = stateres.AuthDifference(sets, f.common, f.graph, 0); err != nil {
			return nil, err
		}
	}
	if create.Version.StateRes == matrix.StateResV21 {
		c.Subgraph, err = stateres.ConflictedSubgraph(all, f.graph, 0)
	}
	return c, err
}

func (f *fork) unconflicted(k event.StateKey) matrix.EventID {
	if f.keys[k] {
		return ""
	}
	id, err := statemap.Get(f.s.loader(f.ctx), f.roots[0], k)
	if err != nil {
		f.failed = err
		return ""
	}
	return id
}

func (f *fork) load(ids []matrix.EventID) (map[matrix.EventID]*event.Event, error) {
	out := make(map[matrix.EventID]*event.Event, len(ids))
	var missing []matrix.EventID
	for _, id := range ids {
		if e, ok := f.events[id]; ok {
			out[id] = e.Event
		} else {
			missing = append(missing, id)
		}
	}
	if len(missing) == 0 {
		return out, nil
	}
	err := f.s.DB.Read(f.ctx, func(tx *storage.Tx) error {
		found, err := tx.LoadEvents(missing)
		for id, e := range found {
			f.events[id], out[id] = e, e.Event
		}
		return err
	})
	return out, err
}

func (f *fork) rejected(id matrix.EventID) bool {
	e, ok := f.events[id]
	return ok && e.Flags&storage.Rejected != 0
}

func (f *fork) graph(ids []matrix.EventID) (map[matrix.EventID]stateres.Node, error) {
	out := make(map[matrix.EventID]stateres.Node, len(ids)+1)
	if p := f.pending; p != nil {
		out[p.ID] = stateres.Node{AuthEvents: p.AuthEvents, Rank: p.AuthRank}
	}
	err := f.s.DB.Read(f.ctx, func(tx *storage.Tx) error {
		nodes, err := tx.LoadAuthNodes(ids)
		for id, n := range nodes {
			out[id] = stateres.Node{AuthEvents: n.AuthEvents, Rank: n.Rank}
		}
		return err
	})
	return out, err
}

// common tells which events belong to the part on which all states agree, or authorise something in it, near or far: those are in
// all auth chains. It looks from an event towards what it authorises, because that is usually one step.
func (f *fork) common(ids []matrix.EventID) (map[matrix.EventID]bool, error) {
	if _, err := f.load(ids); err != nil {
		return nil, err
	}
	out := make(map[matrix.EventID]bool, len(ids))
	for _, id := range ids {
		yes, ok := f.agreement[id]
		if !ok {
			var err error
			if yes, err = f.inAgreement(id); err != nil {
				return nil, err
			}
			f.agreement[id] = yes
		}
		out[id] = yes
	}
	return out, nil
}

func (f *fork) inAgreement(start matrix.EventID) (bool, error) {
	if e := f.events[start]; e != nil && e.StateKey != nil && f.unconflicted(e.Key()) == start {
		return true, nil
	}
	todo, seen := []matrix.EventID{start}, map[matrix.EventID]bool{start: true}
	for len(todo) > 0 && len(seen) < commonLimit {
		id := todo[0]
		todo = todo[1:]
		for after, page := matrix.EventID(""), 64; ; page = 1024 {
			var children []storage.AuthChild
			err := f.s.DB.Read(f.ctx, func(tx *storage.Tx) (err error) { children, err = tx.LoadAuthChildren(id, after, page); return err })
			if err != nil {
				return false, err
			}
			keys := make([]event.StateKey, 0, len(children))
			for _, c := range children {
				if !f.keys[c.Key] {
					keys = append(keys, c.Key)
				}
			}
			agreed, err := statemap.GetMany(f.s.loader(f.ctx), f.roots[0], keys)
			if err != nil {
				return false, err
			}
			for _, c := range children {
				if agreed[c.Key] == c.ID || f.agreement[c.ID] {
					return true, nil
				}
				if !seen[c.ID] {
					seen[c.ID] = true
					todo = append(todo, c.ID)
				}
				after = c.ID
			}
			if len(children) < page || len(seen) >= commonLimit {
				break
			}
		}
	}
	return false, nil
}
