package room

import (
	"context"
	"fmt"
	"slices"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/matrix/stateres"
	"hansa/storage"
	"hansa/storage/statemap"
)

// fork is several states of one room that have to become one. It is fed to state resolution as what differs, never whole.
type fork struct {
	s       *Service
	ctx     context.Context // of one call of resolve
	roots   []statemap.Hash
	keys    map[event.StateKey]bool           // in which the states differ
	agreed  map[event.StateKey]matrix.EventID // entries in which they do not, as far as they were asked for
	events  map[matrix.EventID]*storage.Event
	pending map[matrix.EventID]*storage.Event
	failed  error // of a look-up that could not return it
}

// resolve makes one state of several. It returns its root and the nodes that are new. pending are events that may be part of the
// states and are not stored yet.
//
// spec: server-server-api#room-state-resolution
func (s *Service) resolve(ctx context.Context, create *event.Event, roots []statemap.Hash, pending map[matrix.EventID]*storage.Event) (statemap.Hash, []statemap.Node, error) {
	distinct := roots[:1:1]
	for _, r := range roots[1:] {
		if !slices.Contains(distinct, r) {
			distinct = append(distinct, r)
		}
	}
	if len(distinct) == 1 {
		return roots[0], nil, nil
	}
	if known, ok := s.resolutions.find(keyOf(distinct)); ok {
		return known.root, known.nodes, nil
	}
	return s.merge(ctx, create, distinct, pending)
}

// merge is resolve for several states that are not the same, whether or not it is known already what becomes of them.
func (s *Service) merge(ctx context.Context, create *event.Event, distinct []statemap.Hash, pending map[matrix.EventID]*storage.Event) (statemap.Hash, []statemap.Node, error) {
	f := &fork{s: s, ctx: ctx, roots: distinct, keys: map[event.StateKey]bool{}, agreed: map[event.StateKey]matrix.EventID{},
		events: map[matrix.EventID]*storage.Event{}}
	f.pending = pending
	for id, e := range pending {
		f.events[id] = e
	}
	c, err := f.conflict(create)
	if err != nil {
		return statemap.Hash{}, nil, err
	}
	merged, err := stateres.Resolve(*c)
	if f.failed != nil {
		err = f.failed
	}
	if err != nil {
		return statemap.Hash{}, nil, fmt.Errorf("resolve state: %w", err)
	}
	var changes []statemap.Change
	for k := range f.keys {
		changes = append(changes, statemap.Change{Key: k, ID: merged[k]})
	}
	for k, id := range merged {
		if !f.keys[k] && f.unconflicted(k) == "" {
			changes = append(changes, statemap.Change{Key: k, ID: id})
		}
	}
	root, nodes, err := statemap.Put(s.loader(ctx), distinct[0], changes)
	for _, n := range nodes {
		s.nodes.put(n.Hash, n.Data)
	}
	if err == nil && f.failed == nil {
		s.resolutions.put(keyOf(distinct), resolved{root, nodes})
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
	if create.Version.StateRes == matrix.StateResV1 {
		return c, nil
	}
	var err error
	cover := &cover{fork: f, room: create.RoomID, places: map[matrix.EventID]stateres.Place{}, keys: map[int64]event.StateKey{}, agreed: map[stateres.Place]bool{}}
	chains := stateres.NewChains(cover, 0)
	cover.chains = chains
	c.Mainline = func(top matrix.EventID, list []matrix.EventID) (map[matrix.EventID]int, error) {
		return chains.Mainline(top, list, cover.isPower)
	}
	if c.AuthDifference, err = chains.Difference(sets, cover.common); err != nil {
		return nil, err
	}
	if create.Version.StateRes == matrix.StateResV21 {
		c.Subgraph, err = chains.Subgraph(all)
	}
	return c, err
}

func (f *fork) unconflicted(k event.StateKey) matrix.EventID {
	if f.keys[k] {
		return ""
	}
	id, ok := f.agreed[k]
	if ok {
		return id
	}
	id, err := statemap.Get(f.s.loader(f.ctx), f.roots[0], k)
	if err != nil {
		f.failed = err
		return ""
	}
	f.agreed[k] = id
	return id
}

func (f *fork) load(ids []matrix.EventID) (map[matrix.EventID]*event.Event, error) {
	out := make(map[matrix.EventID]*event.Event, len(ids))
	var missing []matrix.EventID
	for _, id := range ids {
		if e, ok := f.events[id]; ok {
			out[id] = e.Event
		} else if e, ok := f.s.graph.events.find(id); ok {
			f.events[id], out[id] = e, e.Event
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
			f.s.graph.event(e)
		}
		return err
	})
	return out, err
}

func (f *fork) rejected(id matrix.EventID) bool {
	e, ok := f.events[id]
	return ok && e.Flags&storage.Rejected != 0
}
