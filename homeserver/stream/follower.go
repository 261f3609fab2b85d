package stream

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"hansa/storage"
)

// Follower is something that reads the log from its own durable cursor. One node at a time runs it.
type Follower struct {
	// Name is the cursor's name, and that of the lease.
	Name string
	// Handle deals with entries up to a position. It may be given the same entries again. When it returns an error, or
	// panics, the same range comes again after a pause; one that panics in the same way three times in a row is switched off.
	Handle func(ctx context.Context, entries []storage.Entry, upto int64) error
	// SaveEvery is how long the cursor may lag behind in the database, and so how much may come again after a crash; 0 means half a second.
	SaveEvery time.Duration
	// EveryNode is for a follower that also keeps something in memory: every node runs it, from the cursor that they share.
	EveryNode bool
}

const (
	// retryFirst and retryLast are the pauses after errors: they double. retryDatabase is the longest while the database is away.
	retryFirst    = 50 * time.Millisecond
	retryLast     = 30 * time.Second
	retryDatabase = 500 * time.Millisecond
	saveEvery     = 500 * time.Millisecond
)

// Follow runs a follower until ctx ends.
func (s *Stream) Follow(ctx context.Context, f Follower) error {
	if f.EveryNode {
		return s.run(ctx, f, &Lease{})
	}
	return s.Hold(ctx, f.Name, func(ctx context.Context, l *Lease) error { return s.run(ctx, f, l) })
}

// run runs a follower while its lease is held.
func (s *Stream) run(ctx context.Context, f Follower, l *Lease) error {
	if f.SaveEvery == 0 {
		f.SaveEvery = saveEvery
	}
	r := runner{s: s, f: f, lease: l}
	var pos int64
	for {
		err := s.db.Read(ctx, func(tx *storage.Tx) (err error) { pos, err = tx.LoadCursor(f.Name); return err })
		if err == nil {
			break
		}
		if !r.pause(ctx, err) {
			return nil
		}
	}
	r.saved, r.savedAt, r.retry = pos, time.Now(), 0
	for {
		if !r.wait(ctx, pos) {
			return r.save(pos)
		}
		entries, upto, err := s.Read(ctx, pos)
		if err == nil && upto > pos {
			err = Guard(func() error { return f.Handle(ctx, entries, upto) })
		}
		if errors.Is(err, storage.ErrNotHeld) {
			return err
		}
		if !r.panics.again(err) {
			s.metrics.panics.WithLabelValues(f.Name).Inc()
			s.disable(ctx, f.Name, err)
			return r.save(pos)
		}
		if err != nil {
			if r.panics.n > 0 {
				s.metrics.panics.WithLabelValues(f.Name).Inc()
			}
			if !r.pause(ctx, err) {
				return r.save(pos)
			}
			continue
		}
		pos, r.retry = upto, 0
		if time.Since(r.savedAt) >= f.SaveEvery {
			if err := r.save(pos); errors.Is(err, storage.ErrNotHeld) {
				return err
			} else if err != nil {
				s.log.WithError(err).WithField("follower", f.Name).Warn("cursor not saved")
				r.savedAt = time.Now() // for the next try
			}
		}
	}
}

// runner is a follower that runs.
type runner struct {
	s       *Stream
	f       Follower
	lease   *Lease
	saved   int64
	savedAt time.Time
	retry   time.Duration
	panics  panics
}

// wait returns when there is something after a position or it is time to save that, false when ctx ends.
func (r *runner) wait(ctx context.Context, pos int64) bool {
	if pos == r.saved {
		return r.s.Wait(ctx, pos) == nil
	}
	until, cancel := context.WithDeadline(ctx, r.savedAt.Add(r.f.SaveEvery))
	defer cancel()
	return r.s.Wait(until, pos) == nil || ctx.Err() == nil
}

// pause waits after an error, or returns false when ctx ends.
func (r *runner) pause(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	r.s.log.WithError(err).WithField("follower", r.f.Name).Warn("follower failed; trying again")
	longest := retryLast
	if unavailable(err) {
		longest = retryDatabase
	}
	r.retry = min(max(2*r.retry, retryFirst), longest)
	return Pause(ctx, r.retry/2+time.Duration(rand.Int64N(int64(r.retry))))
}

// save stores the cursor, also while the server stops, unless another node has taken over.
func (r *runner) save(pos int64) error {
	if pos == r.saved {
		r.savedAt = time.Now()
		return nil
	}
	err := r.s.db.Update(context.Background(), func(tx *storage.Tx) error {
		if err := r.lease.Fence(tx); err != nil {
			return err
		}
		return tx.SetCursor(r.f.Name, pos)
	})
	if err == nil {
		r.saved, r.savedAt = pos, time.Now()
	}
	return err
}
