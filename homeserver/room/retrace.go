package room

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/storage"
	"hansa/storage/statemap"
)

// retraced is the newest part of a room's graph, with the states after its events made anew.
type retraced struct {
	s      *Service
	ctx    context.Context // of one call of retrace
	a      *stateAudit
	steps  map[matrix.EventID]*step
	merged map[string]statemap.Hash // what became of states, by keyOf
	wrong  []*step                  // after which another state is kept than was made
	// doubtful are those that do not agree with what they follow, where it cannot be told which of them is wrong.
	doubtful []*step
	nodes    []statemap.Node // that the states after wrong ones may need
}

// step is one event of it.
type step struct {
	id         matrix.EventID
	prev       []matrix.EventID
	key        *event.StateKey // nil where the event changes no state
	kept, made statemap.Hash   // the state after it
	// given is set where the state before the event came from another server, so that it cannot be made.
	given bool
	// sure is set where what is kept agrees with what was made, or what was made is beyond doubt.
	sure bool
}

// retrace makes the states after the newest events of a room anew. The first of them are taken as they are kept, unless they begin the room.
func (s *Service) retrace(ctx context.Context, a *stateAudit) (*retraced, error) {
	t := &retraced{s: s, ctx: ctx, a: a, steps: map[matrix.EventID]*step{}, merged: map[string]statemap.Hash{}}
	var list []*step
	for upto := a.upto; len(list) < s.auditEvents; {
		limit := min(auditPage, s.auditEvents-len(list))
		var page []*storage.Event
		err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
			page, err = tx.LoadGraph(a.room.ID, upto, limit)
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, e := range page {
			list = append(list, t.step(e))
		}
		if len(page) < limit {
			break
		}
		upto = page[len(page)-1].Pos - 1
	}
	slices.Reverse(list)
	for _, e := range list {
		if err := t.take(e); err != nil {
			return nil, fmt.Errorf("the state after %s: %w", e.id, err)
		}
		t.steps[e.id] = e
	}
	return t, nil
}

func (t *retraced) step(e *storage.Event) *step {
	st := &step{id: e.ID, prev: e.PrevEvents, kept: e.StateRoot}
	if e.StateKey != nil && e.Flags&storage.Rejected == 0 {
		k := e.Key()
		st.key = &k
	}
	st.given = e.Flags&(storage.Gapped|storage.Backfilled) != 0 && e.Type != auth.TypeCreate || e.Flags&storage.Relayed != 0 && t.s.IsLocal(e.Sender.Server())
	return st
}

// take makes the state after an event that comes after all that were taken before.
func (t *retraced) take(e *step) error {
	e.made = e.kept
	roots, sure := make([]statemap.Hash, 0, len(e.prev)), true
	for _, id := range e.prev {
		p := t.steps[id]
		if p == nil {
			return nil
		}
		roots, sure = append(roots, p.made), sure && p.sure
	}
	if e.given || len(e.prev) == 0 && e.id != t.a.create.ID {
		return nil
	}
	made, nodes, ok, err := t.merge(roots)
	if err != nil || !ok {
		return err
	}
	if e.key != nil {
		root, more, err := statemap.Put(t.s.loader(t.ctx), made, []statemap.Change{{Key: *e.key, ID: e.id}})
		if err != nil {
			return err
		}
		t.keep(more)
		made, nodes = root, append(nodes, more...)
	}
	switch {
	case made == e.kept:
		e.sure = true
	case sure:
		e.made, e.sure = made, true
		t.wrong, t.nodes = append(t.wrong, e), append(t.nodes, nodes...)
	default:
		t.doubtful = append(t.doubtful, e)
	}
	return nil
}

// merge makes one state of several, whatever was made of them before. ok is false where that was done too often.
func (t *retraced) merge(roots []statemap.Hash) (root statemap.Hash, nodes []statemap.Node, ok bool, err error) {
	var distinct []statemap.Hash
	for _, r := range roots {
		if !slices.Contains(distinct, r) {
			distinct = append(distinct, r)
		}
	}
	switch len(distinct) {
	case 0:
		return root, nil, true, nil
	case 1:
		return distinct[0], nil, true, nil
	}
	key := keyOf(distinct)
	if root, ok = t.merged[key]; ok {
		return root, nil, true, nil
	}
	if len(t.merged) >= auditMerges {
		return root, nil, false, nil
	}
	root, nodes, err = t.s.merge(t.ctx, t.a.create, distinct, nil)
	t.keep(nodes)
	t.nodes = append(t.nodes, nodes...) // others may be made of it
	t.merged[key] = root
	return root, nodes, true, err
}

func (t *retraced) keep(nodes []statemap.Node) {
	for _, n := range nodes {
		t.s.nodes.put(n.Hash, n.Data)
	}
}

// current makes the current state out of those after the extremities. sure is set where these are all beyond doubt.
func (t *retraced) current() (root statemap.Hash, sure bool, err error) {
	sure = true
	var roots []statemap.Hash
	for _, id := range t.a.room.Head.Extremities {
		e, end := t.steps[id], t.a.ends[id]
		switch {
		case e != nil:
			roots, sure = append(roots, e.made), sure && e.sure
		case end != nil:
			roots, sure = append(roots, end.StateRoot), false
		}
		if e == nil && end == nil || roots[len(roots)-1] == (statemap.Hash{}) {
			return root, false, fmt.Errorf("the state after its extremity %s is not known", id)
		}
	}
	if len(roots) == 0 {
		return root, false, errors.New("it has no extremities")
	}
	t.merged = map[string]statemap.Hash{}
	root, _, _, err = t.merge(roots)
	return root, sure, err
}
