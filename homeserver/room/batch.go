package room

import (
	"context"
	"fmt"
	"slices"

	"github.com/sirupsen/logrus"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/storage"
	"hansa/storage/statemap"
)

// batch is a number of foreign events on their way into one room in one commit, each judged on the room as those before it left it. The
// room's gate is held all the time, its lock from the first judgement until the commit is handed over.
type batch struct {
	s   *Service
	ctx context.Context // of one take
	l   *live
	// known are the events that were looked for: nil for those that are not stored. Judged ones are added.
	known map[matrix.EventID]*storage.Event
	// gaps are events that stored ones follow and that are not stored themselves, each with an event that is part of the head or came before
	// it and that follows the gap, perhaps by way of events that nobody sees; empty where there is no such one.
	gaps map[matrix.EventID]matrix.EventID
	// waiting are the redactions that came before what they redact, by target.
	waiting map[matrix.EventID][]matrix.EventID
	all     storage.Append
	also    []func(*storage.Tx) error
	// stored are the arrivals whose events all holds, in the same order.
	stored []*arrival
	// stale is set where the room in memory could not follow what is stored.
	stale bool
}

// next is the batch for what comes after this one in the same take.
func (b *batch) next() *batch {
	return &batch{s: b.s, ctx: b.ctx, l: b.l, known: b.known, gaps: b.gaps, waiting: b.waiting}
}

// load reads what most judgements need, together with other rooms.
func (b *batch) load(list []*arrival) error {
	q := &lookup{own: make([]matrix.EventID, len(list))}
	within := make(map[matrix.EventID]bool, len(list))
	for i, a := range list {
		q.own[i] = a.e.ID
		within[a.e.ID] = true
	}
	b.l.mu.Lock()
	for _, a := range list {
		if !b.l.citesCurrent(a.e) {
			for _, id := range a.e.AuthEvents {
				if !within[id] && b.l.flying[id] == nil {
					q.others = append(q.others, id)
				}
			}
		}
		for _, id := range a.e.PrevEvents {
			if _, ok := b.l.ends[id]; !ok && !within[id] && !a.outlier {
				q.others = append(q.others, id)
			}
		}
	}
	b.l.mu.Unlock()
	q.others = slices.DeleteFunc(q.others, func(id matrix.EventID) bool {
		e, ok := b.s.graph.events.find(id)
		if ok {
			b.known[id] = e
		}
		return ok
	})
	if err := b.s.lookups.do(b.ctx, b.s.DB, q); err != nil {
		return err
	}
	for _, ids := range [...][]matrix.EventID{q.own, q.others} {
		for _, id := range ids {
			if b.known[id] = q.found[id]; b.known[id] != nil {
				b.s.graph.event(b.known[id])
			}
		}
	}
	for _, id := range q.own {
		if list := q.children[id]; len(list) > 0 {
			b.gaps[id] = ""
			for _, c := range list {
				if f, ok := q.flags[c]; ok && !f.Hidden() {
					b.gaps[id] = c
				}
			}
		}
		if list := q.redactions[id]; len(list) > 0 {
			b.waiting[id] = slices.Clone(list)
		}
	}
	return nil
}

// find returns a stored event, or one that is on its way to the disk; nil where there is none.
func (b *batch) find(id matrix.EventID) (*storage.Event, error) {
	if e, ok := b.known[id]; ok && e != nil {
		return e, nil
	}
	if e := b.l.flying[id]; e != nil {
		return e, nil
	}
	if _, ok := b.known[id]; ok {
		return nil, nil
	}
	if e, ok := b.s.graph.events.find(id); ok {
		return e, nil
	}
	err := b.findMany([]matrix.EventID{id})
	return b.known[id], err
}

func (b *batch) findMany(ids []matrix.EventID) error {
	var want []matrix.EventID
	for _, id := range ids {
		if _, ok := b.known[id]; ok || b.l.flying[id] != nil {
			continue
		}
		if e, ok := b.s.graph.events.find(id); ok {
			b.known[id] = e
		} else {
			want = append(want, id)
		}
	}
	if len(want) == 0 {
		return nil
	}
	return b.s.DB.Read(b.ctx, func(tx *storage.Tx) error {
		found, err := tx.LoadEvents(want)
		if err == nil {
			for _, id := range want {
				if b.known[id] = found[id]; b.known[id] != nil {
					b.s.graph.event(b.known[id])
				}
			}
		}
		return err
	})
}

// one judges an event, and adds it to what is to be stored.
func (b *batch) one(a *arrival) {
	a.r.EventID = a.e.ID
	known, err := b.find(a.e.ID)
	switch {
	case err != nil:
		a.err = unavailable(err)
		return
	case known != nil && known.RoomID != b.l.id:
		a.err = fmt.Errorf("%w: %s is an event of another room", ErrDropped, a.e.ID)
		return
	case known != nil && (a.outlier || known.Flags&storage.Outlier == 0):
		a.r = Received{EventID: known.ID, Known: true, Flags: known.Flags, Pos: known.Pos}
		return
	}
	j := &judgement{batch: b, a: a, e: a.e, known: known}
	if known != nil {
		j.e = known.Event // the same event, but perhaps redacted meanwhile
	}
	if a.err = j.judge(); a.err != nil {
		return
	}
	if a.strict && j.flags != 0 {
		a.err = j.refusal()
		return
	}
	if a.err = j.store(); a.err != nil {
		return
	}
	a.r.Flags, a.r.Reason = j.flags, j.reason
	if j.flags.Hidden() && j.flags != storage.Outlier {
		b.s.log.WithFields(logrus.Fields{"room_id": b.l.id, "event_id": a.e.ID}).Debugf("an event was taken in with the mark %b: %s", j.flags, j.reason)
	}
}

// commit hands what was judged over to the disk; the returned function waits for it. It is nil where there is nothing to store. The caller
// holds l.mu.
func (b *batch) commit() (wait func() error, err error) {
	l, s := b.l, b.s
	if len(b.stored) == 0 {
		return nil, nil
	}
	if len(b.also) > 0 {
		b.all.Also = func(tx *storage.Tx) error {
			for _, fn := range b.also {
				if err := fn(tx); err != nil {
					return err
				}
			}
			return nil
		}
	}
	if b.stored[0].backfilled { // history gets its positions from the newest down
		slices.Reverse(b.all.Events)
		slices.Reverse(b.stored)
	}
	c := &commit{done: make(chan struct{})}
	l.last = c
	b.all.Patient = !(&ticket{list: b.stored}).alone()
	durable, err := s.DB.Pending(b.ctx, &b.all)
	return func() error {
		if err == nil {
			err = durable()
		}
		if err != nil || b.stale {
			s.drop(l)
		}
		c.end(err)
		if err == nil {
			l.committed(&b.all, "")
		}
		return err
	}, nil
}

// citesCurrent tells whether the auth events of an event are just those that the current state would give it: then its check against
// them is the check against the current state. The caller holds l.mu.
func (l *live) citesCurrent(e *event.Event) bool {
	n := 0
	for _, k := range auth.NeededFor(e) {
		id := l.currentID(k)
		if id == "" {
			continue
		}
		if !slices.Contains(e.AuthEvents, id) {
			return false
		}
		n++
	}
	return n > 0 && n == len(e.AuthEvents)
}

// advance makes a new head the one that the next event is built on. events are those that changes name. The caller holds l.mu.
func (l *live) advance(head storage.Head, changes []statemap.Change, events map[matrix.EventID]*storage.Event) error {
	r := *l.room
	last, state := r.Head.LastPos, r.Head.StatePos
	r.Head = head
	r.Head.LastPos, r.Head.StatePos = last, state
	l.room = &r
	for _, c := range changes {
		n := events[c.ID]
		switch {
		case c.ID == "":
			if err := l.setState(c.Key, nil, 0); err != nil {
				return err
			}
		case n == nil:
			return fmt.Errorf("room %s: state names %s, which is not here", l.id, c.ID)
		default:
			if err := l.setState(c.Key, n.Event, n.AuthRank); err != nil {
				return err
			}
		}
	}
	l.moveEnds(head.Extremities, events)
	return nil
}

// moveEnds keeps the states after the extremities. events are those that some of them name.
func (l *live) moveEnds(extremities []matrix.EventID, events map[matrix.EventID]*storage.Event) {
	ends := make(map[matrix.EventID]statemap.Hash, len(extremities))
	for _, id := range extremities {
		if root, ok := l.ends[id]; ok {
			ends[id] = root
		} else if e := events[id]; e != nil {
			ends[id] = e.StateRoot
		}
	}
	l.ends = ends
}

// moveHead makes a message the end of the room, whose state it leaves alone. The caller holds l.mu.
func (l *live) moveHead(head storage.Head, e *storage.Event) {
	r := *l.room
	head.LastPos, head.StatePos = max(r.Head.LastPos, e.Pos), r.Head.StatePos
	r.Head, l.room = head, &r
	l.moveEnds(head.Extremities, map[matrix.EventID]*storage.Event{e.ID: e})
}
