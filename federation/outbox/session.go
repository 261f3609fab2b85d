package outbox

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/storage"
)

// session is the time that this node holds the lease.
type session struct {
	o        *Outbox
	lease    *stream.Lease
	ephemera chan ephemeral
	roster   *roster        // used by the reader of the log alone
	work     sync.WaitGroup // transactions under way
	bugs     chan error     // panics that leave it unclear how far a server is

	mu sync.Mutex // guards all below
	// pos is the position up to which the log has been looked through.
	pos     int64
	dests   map[pair]*destination
	tenants map[matrix.ServerName]struct{} // those who send
	refused map[pair]time.Time             // when the door last said no
	ready   [pools][]*destination
	running [pools]int
	due     dueHeap
	dirty   []*destination
	gone    []storage.Destination
	wake    chan struct{} // tells schedule
	flush   chan struct{} // tells write that somebody waits
	saved   int64         // the cursor in the database
}

// pair is a tenant and a server that it sends to.
type pair struct{ as, to matrix.ServerName }

// session sends until ctx ends, or something fails that cannot be tried again.
func (o *Outbox) session(ctx context.Context, l *stream.Lease) error {
	s := &session{o: o, lease: l, ephemera: make(chan ephemeral, 4096), bugs: make(chan error, 1), dests: map[pair]*destination{},
		tenants: map[matrix.ServerName]struct{}{},
		refused: map[pair]time.Time{}, wake: make(chan struct{}, 1), flush: make(chan struct{}, 1)}
	s.roster = newRoster(o, s.update)
	if err := s.load(ctx); err != nil {
		return err
	}
	o.mu.Lock()
	o.live = s
	o.mu.Unlock()
	g, gctx := errgroup.WithContext(ctx)
	for _, part := range []func(context.Context) error{s.follow, s.schedule, s.write, s.watch, s.spread, s.fail} {
		g.Go(func() error { return stream.Guard(func() error { return part(gctx) }) })
	}
	err := g.Wait()
	o.mu.Lock()
	o.live = nil
	o.mu.Unlock()
	s.work.Wait()
	if err == nil || ctx.Err() != nil {
		err = s.last(ctx)
	}
	return err
}

// load reads how far each server is.
func (s *session) load(ctx context.Context) error {
	var rows []storage.Destination
	err := s.o.DB.View(ctx, func(tx *storage.Tx) (err error) {
		if s.pos, err = tx.LoadCursor(name); err != nil {
			return err
		}
		rows, err = tx.LoadDestinations()
		return err
	})
	if err != nil {
		return err
	}
	s.saved, s.roster.done = s.pos, s.pos
	now := s.o.Now()
	for _, row := range rows {
		d := &destination{pair: pair{row.Tenant, row.Name}, row: row, stored: row, behind: row.Behind, place: -1}
		if d.row.Failures > 0 {
			d.pool = dead
		}
		s.dests[d.pair], s.tenants[d.as] = d, struct{}{}
		if row.Sending == 0 && !row.Behind {
			continue
		}
		d.since = now
		if wait := time.UnixMilli(row.RetryTS).Sub(now); row.Failures > 0 && wait > 0 {
			s.later(d, min(wait, s.o.tune.pauseLast), false)
		} else {
			s.poke(d, true)
		}
	}
	return nil
}

// update runs a transaction that fails where another node holds the lease.
func (s *session) update(ctx context.Context, fn func(*storage.Tx) error) error {
	return s.o.DB.Update(ctx, func(tx *storage.Tx) error {
		if err := s.lease.Fence(tx); err != nil {
			return err
		}
		return fn(tx)
	})
}

// follow reads the log.
func (s *session) follow(ctx context.Context) error {
	pos := s.pos
	for {
		if s.o.Stream.Wait(ctx, pos) != nil {
			return nil
		}
		entries, upto, err := s.o.Stream.Read(ctx, pos)
		if err == nil {
			err = s.handle(ctx, entries, upto)
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err // begin anew from what is stored
		}
		pos = upto
	}
}

// fail ends the session by a panic of a transaction: what is stored tells the next one how far each server is.
func (s *session) fail(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.bugs:
		return err
	}
}

// watch asks the door about what waits, again and again.
func (s *session) watch(ctx context.Context) error {
	tick := time.NewTicker(s.o.tune.look)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var list []*destination
		s.mu.Lock()
		for _, d := range s.dests {
			if d.pending() {
				list = append(list, d)
			}
		}
		clear(s.refused) // they may have been let in meanwhile
		s.mu.Unlock()
		for _, d := range list {
			s.admit(ctx, d)
		}
	}
}

// admission is what may be sent to a server.
type admission int

const (
	open    admission = iota
	parting           // only that people were taken out of rooms
	closed
	unknown // policy cannot say at present
)

// ask asks the door.
func (o *Outbox) ask(ctx context.Context, p pair) admission {
	err := o.Door.Outbound(ctx, p.as, p.to)
	if err == nil {
		return open
	}
	if !denied(err) {
		return unknown
	}
	if o.Door.OutboundLeave(ctx, p.as, p.to) == nil {
		return parting
	}
	return closed
}

func denied(err error) bool {
	var e *matrix.Error
	return errors.As(err, &e) && e.Status == 403
}

// admit asks the door about a server, and forgets what may not be sent to it.
func (s *session) admit(ctx context.Context, d *destination) admission {
	a := s.o.ask(ctx, d.pair)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dests[d.pair] != d {
		return closed
	}
	d.admitted, d.asked = a, s.o.Now()
	switch a {
	case parting:
		s.keepParting(d)
	case closed:
		s.forget(d)
	}
	return a
}

// forget drops all that waits for a server. The caller holds mu.
func (s *session) forget(d *destination) {
	if d.cancel != nil {
		d.cancel()
	}
	d.queue, d.scan, d.ephemeral, d.behind = nil, nil, nil, false
	if d.place >= 0 {
		s.due.remove(d)
	}
	d.state, d.forgotten = idle, true
	delete(s.dests, d.pair)
	d.row.Pos = s.pos
	s.gone = append(s.gone, d.row)
	s.poll()
	d.answer(errForgotten)
	s.o.metrics.forgotten.Inc()
}

// errForgotten ends what is done for a server that nothing may be sent to.
var errForgotten = errors.New("outbox: nothing may be sent to this server any more")

// keepParting drops all that waits for a server but that people were taken out of rooms. The caller holds mu.
func (s *session) keepParting(d *destination) {
	kept := d.queue[:0:0]
	for _, it := range d.queue {
		if it.post != nil && it.post.parts(d.pair) {
			kept = append(kept, it)
		}
	}
	if !d.behind && len(kept) == len(d.queue) && len(d.ephemeral) == 0 && d.row.Sending == 0 {
		return
	}
	if d.cancel != nil && d.sending != nil && !d.sending.parting {
		d.cancel()
	}
	if d.sending == nil || !d.sending.parting {
		d.row.Sending, d.row.Newest = 0, false
	}
	d.queue, d.scan, d.ephemeral, d.behind, d.row.Behind = kept, nil, nil, false, false
	d.drop = max(d.drop, s.pos) // the EDUs are none of what is kept
	if len(kept) == 0 && d.sending == nil {
		s.forget(d)
		return
	}
	s.mark(d)
}

// hear makes what waits for a server ready.
func (s *session) hear(to matrix.ServerName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for as := range s.tenants {
		d := s.dests[pair{as, to}]
		if d != nil && d.state == waiting && !d.lazy && !d.heard {
			d.heard = true // once a pause
			s.due.remove(d)
			s.enqueue(d)
			s.poll()
		}
	}
}
