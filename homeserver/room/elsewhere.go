package room

import (
	"context"
	"slices"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage"
	"hansa/storage/statemap"
)

// takeOver makes an event that another node has appended the head of a room in memory, so that the room need not be read again for it. It
// reports false where only the database can tell what became of the room. The caller holds l.mu.
func (s *Service) takeOver(l *live, e *storage.Event) bool {
	head := &l.room.Head
	switch {
	case len(l.flying) > 0 || e.Flags != 0 || e.RedactedBy != "" || e.Type == typeRedaction || !s.IsLocal(e.Sender.Server()):
		return false
	case len(e.PrevEvents) != len(head.Extremities):
		return false
	case e.StateKey == nil && e.StateRoot != head.StateRoot:
		return false
	}
	for _, id := range e.PrevEvents {
		if !slices.Contains(head.Extremities, id) {
			return false
		}
	}
	var changes []statemap.Change
	if e.StateKey != nil {
		changes = []statemap.Change{{Key: event.StateKey{Type: e.Type, Key: *e.StateKey}, ID: e.ID}}
	}
	next := storage.Head{Name: string(e.ID), Extremities: []matrix.EventID{e.ID}, Depth: e.Depth, StateRoot: e.StateRoot}
	if l.advance(next, changes, map[matrix.EventID]*storage.Event{e.ID: e}) != nil {
		return false
	}
	r := *l.room
	if r.Head.LastPos = max(r.Head.LastPos, e.Pos); len(changes) > 0 {
		r.Head.StatePos = max(r.Head.StatePos, e.Pos)
	}
	l.room = &r
	l.remember(e.ID)
	return true
}

// canWait tells whether an event that another node has appended may stay out of a room in memory for now: it changes nothing but the
// head, and events of our own are on their way, which will turn out to be built on an old one. The caller holds l.mu.
func (s *Service) canWait(l *live, e *storage.Event) bool {
	return len(l.flying) > 0 && e.StateKey == nil && e.Flags == 0 && e.RedactedBy == "" && e.Type != typeRedaction && s.IsLocal(e.Sender.Server())
}

// pipeline is what a room in memory must know to take back events that turn out to be built on an old head. live.mu guards it.
type pipeline struct {
	// solid is the room as it is in the database, before the first event that is on its way. light are those of them that are messages,
	// which change nothing but the head. era counts how often events were taken back.
	solid *storage.Room
	light map[matrix.EventID]struct{}
	era   int
	// settled is closed when the room is sound again after events were taken back; nil while it is.
	settled chan struct{}
}

// steady locks a room once it is sound.
func (l *live) steady() {
	for {
		l.mu.Lock()
		settled := l.pipe.settled
		if settled == nil {
			return
		}
		l.mu.Unlock()
		<-settled // soon: a few reads of the database
	}
}

// launch notes that an event is about to be applied. The caller holds l.mu.
func (l *live) launch(a *storage.Append) (era int) {
	if len(l.flying) == 0 {
		l.pipe.solid, l.pipe.light = l.room, map[matrix.EventID]struct{}{}
	}
	if len(a.State) == 0 && len(a.Redactions) == 0 && l.pipe.light != nil {
		for i := range a.Events {
			l.pipe.light[a.Events[i].Event.ID] = struct{}{}
		}
	}
	return l.pipe.era
}

// landed notes that an append is on the disk. The caller holds l.mu.
func (l *live) landed(a *storage.Append) {
	if l.pipe.solid == nil || a.Room.Head.LastPos >= l.pipe.solid.Head.LastPos { // answers may come out of order
		l.pipe.solid = a.Room
	}
	for i := range a.Events {
		delete(l.pipe.light, a.Events[i].Event.ID)
	}
}

// regain makes a room in memory sound again after an append that another node was faster than. Where only messages were on their way,
// they are taken back and what the others have written is applied; else the room is dropped, and read again.
func (s *Service) regain(ctx context.Context, l *live, era int) {
	l.mu.Lock()
	if l.gone || l.pipe.era != era { // somebody else did it
		l.mu.Unlock()
		return
	}
	if l.pipe.solid == nil || len(l.pipe.light) != len(l.flying) || l.advance(l.pipe.solid.Head, nil, nil) != nil {
		l.mu.Unlock()
		s.drop(l)
		return
	}
	r := *l.pipe.solid
	l.room = &r
	clear(l.flying)
	clear(l.pipe.light)
	l.pipe.era++
	settled := make(chan struct{})
	l.pipe.settled = settled
	after := r.Head.LastPos
	l.mu.Unlock()
	entries, err := s.newer(ctx, l.id, after)
	if err == nil && len(entries) > 0 {
		s.Refresh(entries)
	} else {
		s.drop(l)
	}
	l.mu.Lock()
	l.pipe.settled = nil
	l.mu.Unlock()
	close(settled)
}

// newer are the events of a room after a position, as far as any node has written them.
func (s *Service) newer(ctx context.Context, id matrix.RoomID, after int64) ([]storage.Entry, error) {
	upto, err := s.Stream.CatchUp(ctx)
	if err != nil {
		return nil, err
	}
	var out []storage.Entry
	for pos := after; pos < upto; {
		entries, next, err := s.Stream.Read(ctx, pos)
		if err != nil {
			return nil, err
		}
		for i := range entries {
			if entries[i].Kind == storage.KindEvent && entries[i].RoomID == id {
				out = append(out, entries[i])
			}
		}
		if next <= pos {
			break
		}
		pos = next
	}
	return out, nil
}
