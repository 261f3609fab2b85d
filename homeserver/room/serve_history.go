package room

import (
	"cmp"
	"context"
	"slices"

	"hansa/matrix"
	"hansa/storage"
)

// Limits of what one request of another server brings.
const (
	// MaxServedBackfill is how many events one page of history has at most.
	MaxServedBackfill = 100
	// MaxServedMissing is how many missing events one answer has at most.
	MaxServedMissing = 50
	// maxServedWalk is how many events are looked at for one request.
	maxServedWalk = 1000
)

// BackfillFor returns a page of history: the named events and those before them in the graph, newest first.
//
// spec: server-server-api#get_matrixfederationv1backfillroomid
func (s *Service) BackfillFor(ctx context.Context, as, server matrix.ServerName, id matrix.RoomID, from []matrix.EventID, limit int) ([][]byte, error) {
	r, err := s.read(ctx, as, server, id)
	if err != nil {
		return nil, err
	}
	w := &walk{r: r, near: map[matrix.EventID]*storage.Event{}, seen: map[matrix.EventID]bool{}}
	known := 0
	for _, id := range from {
		w.seen[id] = true
	}
	first, err := r.load(from)
	if err != nil {
		return nil, err
	}
	for _, e := range first {
		if e.Flags&storage.Outlier == 0 {
			w.queue = append(w.queue, e)
			known++
		}
	}
	if known == 0 {
		return nil, errNoEvent()
	}
	events, err := w.run(min(max(limit, 1), MaxServedBackfill), nil)
	if err != nil {
		return nil, err
	}
	return r.show(events, true)
}

// MissingFor returns events that lie between those that a server has and those that it has heard of, oldest first. Neither the former nor
// the latter are among them.
//
// spec: server-server-api#post_matrixfederationv1get_missing_eventsroomid
func (s *Service) MissingFor(ctx context.Context, as, server matrix.ServerName, id matrix.RoomID, earliest, latest []matrix.EventID, limit int, minDepth int64) ([][]byte, error) {
	r, err := s.read(ctx, as, server, id)
	if err != nil {
		return nil, err
	}
	w := &walk{r: r, near: map[matrix.EventID]*storage.Event{}, seen: map[matrix.EventID]bool{}}
	for _, id := range slices.Concat(earliest, latest) {
		w.seen[id] = true
	}
	heard, err := r.load(latest)
	if err != nil {
		return nil, err
	}
	for _, e := range heard {
		if err := w.parents(e); err != nil {
			return nil, err
		}
	}
	events, err := w.run(min(max(limit, 0), MaxServedMissing), func(e *storage.Event) bool { return e.Depth >= minDepth })
	if err != nil {
		return nil, err
	}
	slices.Reverse(events)
	return r.show(events, true)
}

// walk goes from events to what came before them, the deepest first.
type walk struct {
	r     *reading
	queue []*storage.Event
	near  map[matrix.EventID]*storage.Event // read in advance
	seen  map[matrix.EventID]bool
}

// run collects up to limit events. Rejected events are passed through: others have no use for them. Where want is false of an event,
// nothing before it is looked at.
func (w *walk) run(limit int, want func(*storage.Event) bool) ([]*storage.Event, error) {
	var out []*storage.Event
	for looked := 0; len(w.queue) > 0 && len(out) < limit && looked < maxServedWalk; looked++ {
		i := 0
		for k, e := range w.queue {
			if newer(e, w.queue[i]) < 0 {
				i = k
			}
		}
		e := w.queue[i]
		w.queue = slices.Delete(w.queue, i, i+1)
		if want != nil && !want(e) {
			continue
		}
		if e.Flags&(storage.Rejected|storage.Outlier) == 0 {
			out = append(out, e)
		}
		if err := w.parents(e); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// newer orders events by depth, the deepest first.
func newer(a, b *storage.Event) int {
	return cmp.Or(cmp.Compare(b.Depth, a.Depth), cmp.Compare(b.Pos, a.Pos))
}

// parents puts the parents of an event into the queue. A stretch of the room's timeline is read with them, because that is mostly where
// the next parents are.
func (w *walk) parents(e *storage.Event) error {
	var missing []matrix.EventID
	for _, id := range e.PrevEvents {
		if w.seen[id] {
			continue
		}
		w.seen[id] = true
		if p := w.near[id]; p != nil {
			w.queue = append(w.queue, p)
		} else {
			missing = append(missing, id)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	found, err := w.r.load(missing)
	if err != nil {
		return err
	}
	from := int64(0)
	for _, p := range found {
		if p.Flags&storage.Outlier != 0 {
			continue
		}
		w.queue = append(w.queue, p)
		from = p.Pos
	}
	if from == 0 {
		return nil
	}
	clear(w.near)
	return unavailable(w.r.s.DB.Read(w.r.ctx, func(tx *storage.Tx) error {
		page, err := tx.LoadPage(w.r.id, from, storage.Backward, MaxServedMissing)
		for _, p := range page {
			w.near[p.ID] = p
		}
		return err
	}))
}

// NearestFor returns the event closest to a time in ms, at or after it, or at or before it.
//
// spec: server-server-api#get_matrixfederationv1timestamp_to_eventroomid
func (s *Service) NearestFor(ctx context.Context, as, server matrix.ServerName, id matrix.RoomID, ts int64, dir storage.Direction) (matrix.EventID, int64, error) {
	r, err := s.read(ctx, as, server, id)
	if err != nil {
		return "", 0, err
	}
	var e *storage.Event
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) { e, err = tx.FindNearest(id, ts, dir); return err })
	if err != nil {
		return "", 0, unavailable(err)
	}
	if e == nil {
		return "", 0, errNoEvent()
	}
	seen, err := r.visible([]*storage.Event{e})
	if err != nil {
		return "", 0, unavailable(err)
	}
	if !seen[e.ID] {
		return "", 0, errNoEvent()
	}
	return e.ID, e.OriginServerTS, nil
}
