package room

import (
	"slices"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage"
	"hansa/storage/statemap"
)

const (
	// maxEnds is how many extremities a room has at most: as many as one event can have parents, so that the next one of ours joins
	// them all, and the state it is built on is just what everybody makes of its parents.
	maxEnds = event.MaxPrevEvents
	// maxHiddenWalk is how far an event is followed through events that nobody sees to find out which extremities it replaces.
	maxHiddenWalk = 100
)

// store adds a judged event to the batch, and moves the room's head where it becomes part of it.
func (j *judgement) store() (err error) {
	l, e := j.l, j.e
	if j.a.relayed {
		j.flags |= storage.Relayed
	}
	n := storage.NewEvent{Event: e, Flags: j.flags, AuthRank: j.rank, StateRoot: j.after, DecisionID: j.why.ID, Promoted: j.known != nil}
	if e.StateKey != nil && !j.a.outlier {
		if n.Replaces, err = statemap.Get(j.s.loader(j.ctx), j.before, e.Key()); err != nil {
			return err
		}
	}
	h := l.room.Head
	if len(j.stored) > 0 {
		h = j.all.Head
	}
	a := &storage.Append{Events: []storage.NewEvent{n}, Nodes: j.nodes, Head: h}
	if !j.a.outlier {
		a.Head.Name = string(e.ID)
	}
	joins := j.joins()
	if joins || !j.a.outlier && j.gaps[e.ID] != "" { // what is not seen itself still shows that its parents are no ends of the graph
		if err := j.join(a); err != nil {
			return err
		}
	}
	if joins || j.a.backfilled {
		if err := j.redact(a); err != nil {
			return err
		}
	}
	if j.a.backfilled && !joins && j.gaps[e.ID] == "" {
		if _, err := j.replaced(); err != nil { // for what lies beyond
			return err
		}
	}
	if err := j.awaited(a); err != nil {
		return err
	}
	if j.known != nil && j.known.RedactedBy != "" {
		a.Redactions = append(a.Redactions, storage.Redaction{Target: e.ID, By: j.known.RedactedBy, JSON: j.known.JSON})
	}
	extra, err := j.bring(a)
	if err != nil {
		return err
	}
	j.record(a, joins)
	self := &storage.Event{Event: a.Events[0].Event, Flags: a.Events[0].Flags, AuthRank: j.rank, StateRoot: j.after, Replaces: n.Replaces, DecisionID: n.DecisionID}
	j.publish(self, extra)
	if j.a.outlier {
		return nil
	}
	if err := l.advance(a.Head, a.State, extra); err == nil {
		err = l.applyRedactions(a.Redactions)
		j.stale = j.stale || err != nil
	} else {
		j.stale = true
	}
	l.remember(e.ID)
	return nil
}

// joins tells whether the event becomes part of the room's head. What fails the rules does not. What policy withholds does only where the
// room's state needs it: a message nobody may see is not built upon, a ban counts whoever it comes from.
func (j *judgement) joins() bool {
	if j.flags&(storage.Rejected|storage.SoftFailed|storage.Outlier|storage.Backfilled) != 0 {
		return false
	}
	return j.flags&storage.Withheld == 0 || j.e.StateKey != nil
}

// publish makes the event known to the rest of the batch and to state resolution until it is on the disk.
func (j *judgement) publish(self *storage.Event, extra map[matrix.EventID]*storage.Event) {
	j.batch.known[self.ID] = self
	j.l.flying[self.ID] = self
	extra[self.ID] = self
}

// record adds the append of one event to that of the batch.
func (j *judgement) record(a *storage.Append, joins bool) {
	b := j.batch
	if len(b.stored) == 0 {
		b.all.Room, b.all.Hole = j.l.room, j.a.hole
	}
	j.miss(&a.Events[0], joins)
	b.all.Events = append(b.all.Events, a.Events...)
	b.all.Nodes = append(b.all.Nodes, a.Nodes...)
	b.all.State = append(b.all.State, a.State...)
	b.all.Redactions = append(b.all.Redactions, a.Redactions...)
	b.all.Head = a.Head
	b.stored = append(b.stored, j.a)
	if a.Also != nil {
		b.also = append(b.also, a.Also)
	}
	id, room := j.e.ID, j.l.id
	if _, ok := b.gaps[id]; ok && !j.a.outlier {
		b.also = append(b.also, func(tx *storage.Tx) error { return tx.FillGap(id) })
	}
	for _, c := range a.State {
		if c.ID != id || j.flags.Hidden() { // resolution changed more than what the event says to those who see it
			b.also = append(b.also, func(tx *storage.Tx) error { return tx.Announce(storage.NoticeState, string(room)) })
			break
		}
	}
}

// join makes the event an extremity and resolves the current state anew.
func (j *judgement) join(a *storage.Append) error {
	l, e := j.l, j.e
	replaced, err := j.replaced()
	if err != nil {
		return err
	}
	ends := make([]matrix.EventID, 0, len(l.room.Head.Extremities)+1)
	if j.gaps[e.ID] == "" { // else something that is stored has been built upon it
		ends = append(ends, e.ID)
	}
	for _, id := range l.room.Head.Extremities {
		if !replaced[id] {
			ends = append(ends, id)
		}
	}
	if len(ends) == 0 {
		ends = append(ends, l.room.Head.Extremities...)
	}
	roots, ends, err := j.roots(ends)
	if err != nil {
		return err
	}
	a.Head.Depth = max(a.Head.Depth, e.Depth)
	a.Head.Extremities = ends
	var nodes []statemap.Node
	// The event itself is not stored yet; state resolution must find it all the same.
	pending := l.flying
	if e.StateKey != nil {
		pending = make(map[matrix.EventID]*storage.Event, len(l.flying)+1)
		for id, f := range l.flying {
			pending[id] = f
		}
		pending[e.ID] = &storage.Event{Event: e, Flags: j.flags, AuthRank: j.rank, StateRoot: j.after}
	}
	if a.Head.StateRoot, nodes, err = j.s.resolve(j.ctx, l.rules.Create(), roots, pending); err != nil {
		return err
	}
	j.keepNodes(nodes)
	a.Nodes = append(a.Nodes, nodes...)
	diff, err := statemap.Diff(j.s.loader(j.ctx), l.room.Head.StateRoot, a.Head.StateRoot)
	if err != nil {
		return err
	}
	for _, d := range diff {
		a.State = append(a.State, statemap.Change{Key: d.Key, ID: d.B})
	}
	return nil
}

// replaced are the events that the event follows, also by way of events that never became part of the head.
func (j *judgement) replaced() (map[matrix.EventID]bool, error) {
	out := make(map[matrix.EventID]bool, len(j.e.PrevEvents))
	todo := slices.Clone(j.e.PrevEvents)
	for len(todo) > 0 && len(out) < maxHiddenWalk {
		id := todo[0]
		todo = todo[1:]
		if out[id] {
			continue
		}
		out[id] = true
		if _, ok := j.l.ends[id]; ok {
			continue
		}
		p, err := j.find(id)
		if err != nil {
			return nil, unavailable(err)
		}
		if (p == nil || p.Flags&storage.Outlier != 0) && !slices.Contains(j.e.PrevEvents, id) {
			j.beyond = append(j.beyond, id)
		}
		if p != nil && p.Flags&(storage.Rejected|storage.SoftFailed|storage.Withheld) != 0 {
			todo = append(todo, p.PrevEvents...)
		}
	}
	return out, nil
}

// roots are the states after the extremities. Of too many extremities those go that add nothing to the state, the oldest first; where each
// has a state of its own the newcomer does not become one: it counts as soon as somebody builds upon it.
func (j *judgement) roots(ends []matrix.EventID) ([]statemap.Hash, []matrix.EventID, error) {
	roots := make([]statemap.Hash, len(ends))
	count := map[statemap.Hash]int{}
	for i, id := range ends {
		root, ok := j.l.ends[id]
		if id == j.e.ID {
			root, ok = j.after, true
		}
		if !ok {
			e, err := j.find(id)
			if err != nil {
				return nil, nil, unavailable(err)
			}
			if e == nil {
				return nil, nil, &MissingError{Parents: []matrix.EventID{id}}
			}
			root = e.StateRoot
			j.l.ends[id] = root
		}
		roots[i] = root
		count[root]++
	}
	for i := len(ends) - 1; i >= 0 && len(ends) > maxEnds; i-- {
		if count[roots[i]] > 1 {
			count[roots[i]]--
			ends, roots = slices.Delete(ends, i, i+1), slices.Delete(roots, i, i+1)
		}
	}
	if len(ends) > maxEnds {
		ends, roots = ends[1:], roots[1:]
	}
	return roots, ends, nil
}

// bring finds the events that the new state names, but the event itself.
func (j *judgement) bring(a *storage.Append) (map[matrix.EventID]*storage.Event, error) {
	out := map[matrix.EventID]*storage.Event{}
	var ids []matrix.EventID
	for _, c := range a.State {
		if c.ID != "" && c.ID != j.e.ID {
			ids = append(ids, c.ID)
		}
	}
	if err := j.findMany(ids); err != nil {
		return nil, unavailable(err)
	}
	for _, id := range ids {
		e, err := j.find(id)
		if err != nil {
			return nil, unavailable(err)
		}
		if e == nil {
			return nil, &MissingError{Auth: []matrix.EventID{id}}
		}
		out[id] = e
	}
	return out, nil
}
