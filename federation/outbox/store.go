package outbox

import (
	"context"
	"errors"
	"time"

	"hansa/storage"
)

// mark makes sure that a destination's row is stored soon. The caller holds mu.
func (s *session) mark(d *destination) {
	if !d.dirty {
		d.dirty = true
		s.dirty = append(s.dirty, d)
	}
}

// batch is what one transaction of the database stores.
type batch struct {
	dests   []*destination
	rows    []storage.Destination
	waiters [][]chan error
	drops   []storage.Destination // queued EDUs up to Pos
	gone    []storage.Destination
	cursor  int64
}

// savesApart is the shortest time between two such transactions.
const savesApart = 5 * time.Millisecond

// maxStored is how many rows one transaction stores.
const maxStored = 500

// collect takes what is to be stored. The cursor is stored only now and then.
func (s *session) collect(cursor bool) *batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &batch{gone: s.gone}
	s.gone = nil
	if cursor {
		s.giveUp()
	}
	n := min(len(s.dirty), maxStored)
	for _, d := range s.dirty[:n] {
		d.dirty = false
		if d.forgotten {
			d.answer(errForgotten)
			continue
		}
		b.dests, b.rows, b.waiters = append(b.dests, d), append(b.rows, d.row), append(b.waiters, d.saves)
		d.saves = nil
		if d.drop > 0 {
			b.drops = append(b.drops, storage.Destination{Tenant: d.as, Name: d.to, Pos: d.drop})
			d.drop = 0
		}
	}
	s.dirty = append(s.dirty[:0:0], s.dirty[n:]...)
	if cursor {
		b.cursor = s.floor()
	}
	return b
}

// giveUp stores of servers that take nothing that they miss something, so that the cursor can go on. The caller holds mu.
func (s *session) giveUp() {
	now := s.o.Now()
	for _, d := range s.dests {
		switch {
		case len(d.queue) > 0 && !d.row.Behind && now.Sub(d.since) > s.o.tune.behindAfter:
			d.row.Behind = true
			s.mark(d)
		case len(d.queue) > 0 && !d.behind && d.row.Failures > 0 && now.UnixMilli()-d.row.FailedTS > s.o.tune.forgetAfter.Milliseconds():
			s.fallBehind(d)
		}
	}
}

// floor is the position up to which everything is sent, or stored as missing. The caller holds mu.
func (s *session) floor() int64 {
	low := s.pos
	for _, d := range s.dests {
		switch {
		case d.stored.Behind && d.row.Behind: // looked up from there after a restart
		case d.behind:
			low = min(low, d.row.Pos)
		case len(d.queue) > 0:
			low = min(low, d.queue[0].pos-1)
		}
	}
	return max(low, s.saved)
}

// put stores a batch.
func (s *session) put(ctx context.Context, b *batch) error {
	if len(b.rows)+len(b.gone)+len(b.drops) == 0 && b.cursor <= s.savedPos() {
		return nil
	}
	return s.update(ctx, func(tx *storage.Tx) error {
		for _, d := range b.gone {
			if err := tx.DeleteQueuedEDUs(d.Tenant, d.Name, d.Pos); err != nil {
				return err
			}
		}
		if err := tx.DeleteDestinations(b.gone); err != nil {
			return err
		}
		if err := tx.PutDestinations(b.rows); err != nil {
			return err
		}
		for _, d := range b.drops {
			if err := tx.DeleteQueuedEDUs(d.Tenant, d.Name, d.Pos); err != nil {
				return err
			}
		}
		if b.cursor > 0 {
			return tx.SetCursor(name, b.cursor)
		}
		return nil
	})
}

func (s *session) savedPos() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saved
}

// settled takes note of what became of a batch.
func (s *session) settled(b *batch, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, d := range b.dests {
		if err == nil {
			d.stored = b.rows[i]
		}
		for _, c := range b.waiters[i] {
			c <- err
		}
	}
	if err == nil {
		s.saved = max(s.saved, b.cursor)
	}
}

// write stores how far servers are: at once where a transaction waits for it, else a little later and many together.
func (s *session) write(ctx context.Context) error {
	tick := time.NewTicker(s.o.tune.save)
	defer tick.Stop()
	tidy := time.NewTicker(s.o.tune.tidy)
	defer tidy.Stop()
	var last time.Time
	for {
		if d := savesApart - time.Since(last); d > 0 { // what many transactions wait for is one commit
			rest := time.NewTimer(d)
			select {
			case <-ctx.Done():
				rest.Stop()
				return nil
			case <-rest.C:
			}
		}
		cursor := false
		select {
		case <-ctx.Done():
			return nil
		case <-s.flush:
		case <-tick.C:
			cursor = true
		case <-tidy.C:
			if err := s.tidy(ctx); err != nil && ctx.Err() == nil {
				s.o.log.WithError(err).Warn("what nobody needs any more was not deleted")
			}
		}
		last = time.Now()
		for again := true; again; {
			b := s.collect(cursor)
			if err := s.store(ctx, b); err != nil {
				s.settled(b, err)
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
			s.settled(b, nil)
			again = len(b.rows) == maxStored
		}
	}
}

// tidy deletes EDUs that nobody came for, and stays in rooms that ended before anything that is still to be sent.
func (s *session) tidy(ctx context.Context) error {
	s.mu.Lock()
	low := s.saved
	for _, d := range s.dests {
		if d.stored.Behind || d.behind {
			low = min(low, d.stored.Pos)
		}
	}
	s.mu.Unlock()
	return s.update(ctx, func(tx *storage.Tx) error {
		if _, err := tx.PruneQueuedEDUs(s.o.Now().Add(-s.o.tune.keep).UnixMilli()); err != nil {
			return err
		}
		_, err := tx.PruneRoomServers(low)
		return err
	})
}

// store puts a batch until the database takes it.
func (s *session) store(ctx context.Context, b *batch) error {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := s.put(ctx, b)
		if err == nil || !errors.Is(err, storage.ErrUnavailable) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// last stores what is left when the session ends.
func (s *session) last(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	for {
		b := s.collect(true)
		err := s.put(ctx, b)
		s.settled(b, err)
		if err != nil || len(b.rows) < maxStored {
			if errors.Is(err, storage.ErrNotHeld) {
				err = nil // another node goes on from what is stored
			}
			return err
		}
	}
}
