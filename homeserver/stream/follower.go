package stream

import (
	"context"
	"math/rand/v2"
	"time"

	"hansa/storage"
)

// Follower is something that reads the log from its own durable cursor.
type Follower struct {
	// Name is the cursor's name.
	Name string
	// Handle deals with entries up to a position. It may be given the same entries again. When it returns an error the same
	// range comes again after a pause.
	Handle func(ctx context.Context, entries []storage.Entry, upto int64) error
	// SaveEvery is how long the cursor may lag behind in the database; 0 means that it is saved after every range.
	SaveEvery time.Duration
}

// Follow runs a follower until ctx ends.
func (s *Stream) Follow(ctx context.Context, f Follower) error {
	var pos int64
	retry := time.Duration(0)
	pause := func(err error) bool {
		s.log.WithError(err).WithField("follower", f.Name).Warn("follower failed; trying again")
		retry = min(max(2*retry, 50*time.Millisecond), 30*time.Second)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(retry + time.Duration(rand.Int64N(int64(retry)))):
			return true
		}
	}
	for {
		err := s.db.Read(ctx, func(tx *storage.Tx) (err error) { pos, err = tx.LoadCursor(f.Name); return err })
		if err == nil {
			break
		}
		if ctx.Err() != nil || !pause(err) {
			return nil
		}
	}
	saved, savedAt := pos, time.Now()
	for {
		if s.Wait(ctx, pos) != nil {
			return s.save(f, pos, saved)
		}
		entries, upto, err := s.Read(ctx, pos)
		if err == nil {
			err = f.Handle(ctx, entries, upto)
		}
		if err != nil {
			if ctx.Err() != nil || !pause(err) {
				return s.save(f, pos, saved)
			}
			continue
		}
		pos, retry = upto, 0
		if time.Since(savedAt) >= f.SaveEvery {
			if err := s.save(f, pos, saved); err != nil {
				s.log.WithError(err).WithField("follower", f.Name).Warn("cursor not saved")
				continue
			}
			saved, savedAt = pos, time.Now()
		}
	}
}

// save stores the cursor, also while the server stops.
func (s *Stream) save(f Follower, pos, saved int64) error {
	if pos == saved {
		return nil
	}
	return s.db.Update(context.Background(), func(tx *storage.Tx) error { return tx.SetCursor(f.Name, pos) })
}
