package room

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"time"

	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/storage"
)

const (
	// maxTogether is how many events of several requests are taken into a room in one commit.
	maxTogether = 256
	// maxTakes is how often foreign events are judged anew because another node was faster.
	maxTakes = 20
	// overtaken is how often that is left to chance, here and where our own users send: then this node goes first.
	overtaken = 4
	// takeTimeout is how long that may take: one request that is given up does not end it for the others.
	takeTimeout = time.Minute
)

// gate lets one goroutine at a time take foreign events into a room. Requests that arrive meanwhile wait in a line, and whoever gets through
// takes along what waits, so that a room which many servers send into costs a commit for each batch and not for each event.
type gate struct {
	held chan struct{} // holds one value while somebody is inside

	mu   sync.Mutex
	line []*ticket // guarded by mu
}

// ticket is one request's events in the line.
type ticket struct {
	list []*arrival
	done chan struct{} // closed when the events are dealt with
	// again is set where the room has moved on meanwhile, and last where that is an error.
	again, last bool
}

// alone tells whether the events need a commit of their own: fetched events and history.
func (t *ticket) alone() bool {
	return len(t.list) == 0 || t.list[0].outlier || t.list[0].backfilled || slices.ContainsFunc(t.list, func(a *arrival) bool { return a.stateBefore != nil })
}

func (t *ticket) fail(err error) {
	for _, a := range t.list {
		if a.err == nil {
			a.err = err
		}
	}
}

// next takes what can be dealt with in one go from the front of the line.
func (g *gate) next() []*ticket {
	g.mu.Lock()
	defer g.mu.Unlock()
	n, size := 0, 0
	for n < len(g.line) && (n == 0 || !g.line[n].alone() && !g.line[0].alone() && size+len(g.line[n].list) <= maxTogether) {
		size += len(g.line[n].list)
		n++
	}
	out := slices.Clone(g.line[:n])
	g.line = slices.Delete(g.line, 0, n)
	return out
}

// withdraw takes a ticket out of the line. It reports false where it is not there any more.
func (g *gate) withdraw(t *ticket) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.line, t)
	if i >= 0 {
		g.line = slices.Delete(g.line, i, i+1)
	}
	return i >= 0
}

// enter waits until nobody else takes events into the room. Sends of our own users do not wait here: they are built on what is in memory.
func (l *live) enter(ctx context.Context) (leave func(), err error) {
	select {
	case l.gate.held <- struct{}{}:
		return func() { <-l.gate.held }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// take takes events into a room, in the given order and in one commit, perhaps with those of others; each one's result is in it.
func (s *Service) take(ctx context.Context, id matrix.RoomID, list []*arrival) {
	for try := 1; ; try++ {
		if try == overtaken+1 {
			end, err := s.DB.Prefer(ctx)
			if err != nil {
				(&ticket{list: list}).fail(unavailable(err))
				return
			}
			defer end()
		}
		t := &ticket{list: list, done: make(chan struct{}), last: try >= maxTakes}
		l, err := s.live(ctx, id)
		if err != nil {
			t.fail(unavailable(err))
			return
		}
		if err := s.pass(ctx, l, t); err != nil {
			t.fail(err)
		}
		if !t.again {
			return
		}
		for _, a := range list {
			a.r, a.err = Received{}, nil
		}
	}
}

// pass waits until the ticket was dealt with, by this goroutine or by one before it.
func (s *Service) pass(ctx context.Context, l *live, t *ticket) error {
	g := l.gate
	g.mu.Lock()
	g.line = append(g.line, t)
	g.mu.Unlock()
	for {
		select {
		case <-t.done:
			return nil
		case g.held <- struct{}{}:
			if list := g.next(); len(list) > 0 {
				s.takeTogether(ctx, l, list)
			}
			<-g.held
		case <-ctx.Done():
			if g.withdraw(t) {
				return ctx.Err()
			}
			<-t.done
			return nil
		}
	}
}

// takeTogether deals with the events of several requests in one commit.
func (s *Service) takeTogether(ctx context.Context, l *live, tickets []*ticket) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), takeTimeout)
	defer cancel()
	var list []*arrival
	for _, t := range tickets {
		list = append(list, t.list...)
	}
	again, err := s.tryTake(ctx, l, list)
	for _, t := range tickets {
		switch {
		case err == nil:
		case again && !t.last:
			t.again = true
		default:
			t.fail(unavailable(err))
		}
		close(t.done)
	}
}

// tryTake makes one attempt. again is true where the error says that the room has moved on meanwhile.
//
// Sends of our own users go first: where one of them waits for the room, what was judged so far is handed over, and the rest comes after
// them.
func (s *Service) tryTake(ctx context.Context, l *live, list []*arrival) (again bool, err error) {
	b := &batch{s: s, ctx: ctx, l: l, known: map[matrix.EventID]*storage.Event{}, gaps: map[matrix.EventID]matrix.EventID{}, waiting: map[matrix.EventID][]matrix.EventID{}}
	if err := b.load(list); err != nil {
		return false, err
	}
	whole := (&ticket{list: list}).alone()
	var parts []*batch
	var waits []func() error
	moved := false
	for len(list) > 0 && !moved && err == nil {
		end := func() {}
		if !whole {
			if err = s.labour.begin(ctx); err != nil {
				break
			}
			end = s.labour.end
		}
		l.mu.Lock()
		if moved = l.gone; moved {
			l.mu.Unlock()
			end()
			break
		}
		var wait func() error
		err = stream.Guard(func() (err error) { // a bug must not leave the room locked
			n := 0
			for n < len(list) && (n == 0 || whole || l.wanted.Load() == 0) {
				b.one(list[n])
				n++
			}
			list = list[n:]
			wait, err = b.commit()
			return err
		})
		l.mu.Unlock()
		end()
		if bug := (*stream.PanicError)(nil); errors.As(err, &bug) {
			s.log.WithError(err).WithField("room_id", l.id).WithField("stack", bug.Stack).Error("panic while events were taken into a room; it is read again")
			s.drop(l)
		}
		if wait != nil {
			parts, waits = append(parts, b), append(waits, wait)
		} else if b.stale {
			s.drop(l)
		}
		moved = b.stale && len(list) > 0
		b = b.next()
		if len(list) > 0 {
			runtime.Gosched()
		}
	}
	for i, wait := range waits {
		if werr := wait(); werr != nil {
			err = errors.Join(err, werr)
			continue
		}
		parts[i].stands()
	}
	if moved && err == nil {
		err = storage.ErrConflict
	}
	return err != nil && (moved || errors.Is(err, storage.ErrConflict) || errors.Is(err, storage.ErrDuplicate)), err
}

// stands takes note of what was stored.
func (b *batch) stands() {
	b.s.graph.redacted(b.all.Redactions)
	for i, a := range b.stored {
		a.stored = b.all.Stored[i]
		a.r.Pos = a.stored.Pos
		b.s.graph.event(a.stored)
	}
}
