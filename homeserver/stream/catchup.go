package stream

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"hansa/storage"
)

const (
	// pollTold is how often a node that hears of the others looks for itself, pollActive and pollQuiet how often one that does not:
	// while others write, and when nothing came for activeFor.
	pollTold   = 500 * time.Millisecond
	pollActive = 100 * time.Millisecond
	pollQuiet  = 250 * time.Millisecond
	activeFor  = 5 * time.Second
	// looksApart is the shortest time between two looks, vainApart the longest to which it grows when hints were in vain.
	looksApart = 8 * time.Millisecond
	vainApart  = 100 * time.Millisecond
	// restEach and restMost say how long to rest after something: see rest.
	restEach = time.Millisecond
	restMost = 40 * time.Millisecond
	// gapPatience is how long the transaction that is missing is given to be published by this process.
	gapPatience = 2 * time.Millisecond
)

// Run makes the stream hear of other nodes and keeps the leases of this one, until ctx ends.
func (s *Stream) Run(ctx context.Context) error {
	if s.db.Name() == "sqlite" { // no other nodes; gaps are filled by the transactions of this process
		return s.follow(ctx)
	}
	var g errgroup.Group
	g.Go(func() error { return s.follow(ctx) })
	g.Go(func() error { return s.keeper.run(ctx) })
	if s.bus != nil {
		g.Go(func() error { return s.bus.run(ctx) })
	}
	return g.Wait()
}

// rest is how long to wait before something is done again that costs the same however far the log has moved, and that makes those work who
// wait for it. Below a thousand positions a second it is least; above, it grows until what was found grows no more: then a wake-up, a look
// and an answer of /sync bring more events each.
func rest(moved int64, least time.Duration) time.Duration {
	return min(max(time.Duration(moved)*restEach, least), restMost)
}

// follow fills gaps that other nodes' transactions leave, and looks for their positions.
func (s *Stream) follow(ctx context.Context) error {
	poll := time.NewTimer(time.Hour)
	defer poll.Stop()
	var news, last time.Time // when another node had written something, and when the last look ended
	apart, vain := looksApart, looksApart
	for {
		switch {
		case s.db.Name() == "sqlite":
		case apart > looksApart: // there will be news
			poll.Reset(apart)
		default:
			poll.Reset(s.patience(news))
		}
		cause, first, rested := "poll", time.Duration(0), apart
		select {
		case <-ctx.Done():
			return nil
		case <-s.gap:
			cause, first = "gap", gapPatience
		case <-s.hint:
			cause, rested = "hint", max(apart, vain)
		case <-poll.C:
		}
		if d := max(first, rested-time.Since(last)); d > 0 && !Pause(ctx, d) {
			return nil
		}
		for _, c := range []chan struct{}{s.gap, s.hint} { // this look is theirs, too
			select {
			case <-c:
			default:
			}
		}
		s.metrics.looks.WithLabelValues(cause).Inc()
		before := s.Position()
		found, err := s.catchUp(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.WithError(err).Warn("could not read the log; trying again")
		}
		apart = rest(s.Position()-before, looksApart)
		switch last = time.Now(); {
		case found:
			news, vain = last, looksApart
		case cause == "hint": // said again, or by somebody who knows nothing
			vain = min(2*vain, vainApart)
		}
	}
}

// patience is how long to wait for a hint before looking without one.
func (s *Stream) patience(news time.Time) time.Duration {
	switch {
	case s.poll > 0:
		return s.poll
	case s.bus != nil && s.bus.connected():
		return pollTold
	case time.Since(news) < activeFor:
		return pollActive
	}
	return pollQuiet
}

// catchUp reads from the database what was committed when it began and is not here yet. A position that is visible makes all below it
// visible, so reading up to the newest one leaves no gap. What is committed meanwhile is left to the next look: a busy deployment always has
// some.
func (s *Stream) catchUp(ctx context.Context) (found bool, err error) {
	target, err := s.readNews(ctx)
	found = target > 0
	for err == nil {
		after, upto := s.gapAhead()
		if target > 0 && after >= target {
			return found, nil
		}
		var entries []storage.Entry
		err = s.keeper.db().Read(ctx, func(tx *storage.Tx) error {
			if target <= 0 {
				pos, err := tx.Position()
				if err != nil {
					return err
				}
				target = pos
			}
			if upto == 0 {
				upto = target
			}
			if upto = min(upto, after+readMax); upto <= after {
				return nil
			}
			// Two statements, two snapshots: what is replaced in between shows at its newer position, later.
			var err error
			entries, err = tx.ReadLog(after, upto)
			return err
		})
		if err != nil || upto <= after {
			return found, err
		}
		found = true
		s.mu.Lock()
		if upto > s.pos {
			s.append(upto, entries)
			s.drain()
			s.wake()
		}
		s.mu.Unlock()
	}
	return found, err
}

// readNews takes in the events that are not here yet. It returns how far the log goes; 0 where no event was found.
func (s *Stream) readNews(ctx context.Context) (newest int64, err error) {
	after, have := s.known()
	var news []storage.Entry
	err = s.keeper.db().Read(ctx, func(tx *storage.Tx) (err error) {
		news, newest, err = tx.ReadNews(after, have)
		return err
	})
	if err != nil || len(news) == 0 {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(news) > 0 { // what stands side by side is as good as a transaction of this process
		n := 1
		for n < len(news) && news[n].Pos == news[0].Pos+int64(n) {
			n++
		}
		s.hold(news[0].Pos, news[n-1].Pos, news[:n:n])
		news = news[n:]
	}
	before := s.pos
	if s.drain(); s.pos > before {
		s.wake()
	}
	return newest, nil
}

// known is the newest position here, and those behind it that are here already.
func (s *Stream) known() (after int64, have []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	have = []int64{}
	for first, b := range s.ahead {
		for pos := first; pos <= b.last && len(have) < readMax; pos++ {
			have = append(have, pos)
		}
	}
	return s.pos, have
}

// gapAhead is the newest position here and, where this process has committed something beyond it, the last position that is missing
// before that. 0 means that nothing is known to be missing.
func (s *Stream) gapAhead() (after, upto int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for first := range s.ahead {
		if upto == 0 || first-1 < upto {
			upto = first - 1
		}
	}
	if upto <= s.pos {
		upto = 0
	}
	return s.pos, upto
}

// unavailable tells whether an error is the database's, which comes back.
func unavailable(err error) bool { return errors.Is(err, storage.ErrUnavailable) }

// CatchUp reads what is in the database now and not here yet, without waiting for a hint or the poll, and returns the newest position.
// Those who ask at the same time share one look.
func (s *Stream) CatchUp(ctx context.Context) (int64, error) {
	begun := s.begun.Load()
	s.looking.Lock()
	defer s.looking.Unlock()
	if s.begun.Load() > begun { // a look that began after the question has ended
		return s.Position(), s.looked
	}
	s.begun.Add(1)
	s.metrics.looks.WithLabelValues("request").Inc()
	_, s.looked = s.catchUp(context.WithoutCancel(ctx)) // others wait for it, too
	return s.Position(), s.looked
}
