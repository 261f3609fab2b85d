package appservices

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/storage"
)

// tune is how patient the readers are; tests are less so.
type tune struct {
	// pauseFirst and pauseLast are the pauses after failures: they double.
	pauseFirst, pauseLast time.Duration
	// timeout is how long a bridge has for a transaction.
	timeout time.Duration
	// events and bytes bound a transaction, chunk how many entries of the log are looked at for one.
	events, bytes, chunk int
	// saveEvery is how far the stored position may lag behind where there is nothing to tell.
	saveEvery time.Duration
	// alarm is after which time of failures somebody is called.
	alarm time.Duration
}

func defaultTune() tune {
	return tune{pauseFirst: 500 * time.Millisecond, pauseLast: time.Minute, timeout: 40 * time.Second, events: 100, bytes: 1 << 20, chunk: 1000,
		saveEvery: 5 * time.Second, alarm: 5 * time.Minute}
}

// reader tells one bridge of what concerns it. It holds no queue: a position, and what is in the transaction under way.
type reader struct {
	s     *Service
	reg   *Registration
	stop  context.CancelFunc
	done  chan struct{}   // closed when it has ended
	after <-chan struct{} // of the reader before it, nil for none
	ended bool            // it was told to; guarded by Service.mu
	again chan struct{}   // tells it that the bridge may be back

	pos     atomic.Int64 // for the metrics
	failing atomic.Int64 // since when, ms; 0 for not
	holds   atomic.Bool  // this node runs it

	sending sync.Mutex // held during a transaction

	// used by session alone
	lease    *stream.Lease
	interest map[matrix.RoomID]*interest
	saved    int64
	savedAt  time.Time
}

// arrange starts and stops readers as registrations and suspensions say.
func (s *Service) arrange(ctx context.Context, all *sync.WaitGroup) {
	current := s.set.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, rd := range s.readers {
		if r := current.byID[id]; !rd.ended && (r == nil || r.print != rd.reg.print || s.suspended[id]) {
			rd.ended = true
			rd.stop()
		}
	}
	for _, r := range current.list {
		old := s.readers[r.ID]
		if s.suspended[r.ID] || r.base == nil || old != nil && !old.ended {
			continue
		}
		rd := &reader{s: s, reg: r, done: make(chan struct{}), again: make(chan struct{}, 1)}
		if old != nil {
			rd.after = old.done
		}
		work, stop := context.WithCancel(ctx)
		rd.stop = stop
		s.readers[r.ID] = rd
		all.Go(func() {
			defer close(rd.done)
			defer stop()
			rd.run(work)
		})
	}
}

// heard is called when a bridge makes a request: it is alive.
func (s *Service) heard(id string) {
	s.mu.Lock()
	rd := s.readers[id]
	s.mu.Unlock()
	if rd != nil && rd.failing.Load() != 0 {
		select {
		case rd.again <- struct{}{}:
		default:
		}
	}
}

// run holds the lease, of all nodes one at a time, until ctx ends.
func (rd *reader) run(ctx context.Context) {
	if rd.after != nil {
		<-rd.after // it was told to end
	}
	for ctx.Err() == nil {
		name := "bridge." + rd.reg.ID
		err := rd.s.Stream.Hold(ctx, name, func(ctx context.Context, lease *stream.Lease) error {
			return rd.s.Stream.Keep(ctx, name, func(ctx context.Context) error { return rd.session(ctx, lease) })
		})
		if err != nil && ctx.Err() == nil {
			rd.s.log.WithField("bridge", rd.reg.ID).WithError(err).Warn("telling a bridge of news failed; trying again")
			stream.Pause(ctx, time.Second)
		}
	}
}

// session reads the log while this node holds the lease.
func (rd *reader) session(ctx context.Context, lease *stream.Lease) error {
	s := rd.s
	rd.lease, rd.interest = lease, map[matrix.RoomID]*interest{}
	var row storage.Bridge
	if err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) { row, err = tx.LoadBridge(rd.reg.ID); return err }); err != nil {
		return fmt.Errorf("load the position of a bridge: %w", err)
	}
	s.ensureBot(ctx, rd.reg)
	rd.saved, rd.savedAt = row.Pos, time.Now()
	rd.pos.Store(row.Pos)
	rd.holds.Store(true)
	defer rd.holds.Store(false)
	var live sync.WaitGroup
	defer live.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if rd.reg.Ephemeral && s.Ephemeral != nil {
		live.Go(func() {
			_ = s.Stream.Keep(ctx, "bridge."+rd.reg.ID+".ephemeral", rd.tellEphemeral) // it has no errors
		})
	}
	sending := row.Sending
	for pause := time.Duration(0); ; {
		pos := rd.pos.Load()
		if s.Stream.Wait(ctx, pos) != nil {
			return rd.save(pos, true)
		}
		err := rd.advance(ctx, pos, &sending)
		switch {
		case ctx.Err() != nil:
			return rd.save(rd.pos.Load(), true)
		case errors.Is(err, storage.ErrNotHeld):
			return err
		case err == nil:
			rd.failing.Store(0)
			pause = 0
			continue
		}
		pause = min(max(2*pause, s.tune.pauseFirst), s.tune.pauseLast)
		rd.failed(err, pause)
		if !rd.wait(ctx, pause) {
			return rd.save(rd.pos.Load(), true)
		}
	}
}

// failed says that a bridge does not take what it is told: the first time, and when somebody should look after it.
func (rd *reader) failed(err error, pause time.Duration) {
	now := rd.s.Now()
	log := rd.s.log.WithField("bridge", rd.reg.ID).WithField("duration", pause.String()).WithError(err)
	rd.s.metrics.failures.WithLabelValues(rd.reg.ID).Inc()
	if rd.failing.CompareAndSwap(0, now.UnixMilli()) {
		log.Warn("a bridge does not take what it is told; trying again")
		return
	}
	if now.Sub(time.UnixMilli(rd.failing.Load())) >= rd.s.tune.alarm {
		log.Error("a bridge has not taken what it is told for a while")
		return
	}
	log.Debug("a bridge still does not take what it is told")
}

// wait waits for the next try: the pause, or until the bridge shows that it is alive.
func (rd *reader) wait(ctx context.Context, pause time.Duration) bool {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-rd.again:
		return stream.Pause(ctx, min(pause, 100*time.Millisecond)) // however often it says so
	case <-ctx.Done():
		return false
	}
	return true
}

// advance tells the bridge of one range of the log. The range of a transaction that was not confirmed is the same again, also on
// another node, so that what is the same gets the same transaction ID.
//
// spec: application-service-api#pushing-events
func (rd *reader) advance(ctx context.Context, pos int64, sending *int64) error {
	s := rd.s
	entries, upto, err := s.Stream.Read(ctx, pos)
	for err == nil && upto < *sending {
		var more []storage.Entry
		more, upto, err = s.Stream.Read(ctx, upto)
		entries = append(entries[:len(entries):len(entries)], more...)
	}
	if err == nil {
		err = s.Sync.Reach(ctx, upto)
	}
	for err == nil && pos < upto && ctx.Err() == nil {
		var t *transaction
		if t, err = rd.compose(ctx, entries, pos, upto, *sending); err != nil {
			return err
		}
		if t.empty() {
			err = rd.skip(t.end, sending)
		} else {
			err = rd.deliver(ctx, t, pos, sending)
		}
		if err != nil {
			return err
		}
		pos = t.end
		for len(entries) > 0 && entries[0].Pos <= pos {
			entries = entries[1:]
		}
	}
	return err
}

// skip goes on over a range that holds nothing for the bridge.
func (rd *reader) skip(end int64, sending *int64) error {
	rd.pos.Store(end)
	forced := *sending != 0
	*sending = 0
	return rd.save(end, forced)
}

// deliver hands over one transaction and notes that it was confirmed.
func (rd *reader) deliver(ctx context.Context, t *transaction, pos int64, sending *int64) error {
	s := rd.s
	if *sending != t.end {
		// Before the bridge can hear of it: whoever tries again, tries with this range.
		if err := rd.update(ctx, func(tx *storage.Tx) error { return tx.SetBridgeSending(rd.reg.ID, pos, t.end) }); err != nil {
			return err
		}
		*sending, rd.saved = t.end, pos
	}
	rd.sending.Lock()
	err := s.put(ctx, rd.reg, t.id(pos), t.body())
	rd.sending.Unlock()
	if err != nil {
		return err
	}
	now := s.Now().UnixMilli()
	// It was confirmed: that is written down also where the server stops just now.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err = rd.update(last, func(tx *storage.Tx) error {
		for _, d := range t.devices {
			if _, err := tx.DeleteToDevice(d.user, d.device, d.pos); err != nil {
				return err
			}
		}
		return tx.SetBridgePos(rd.reg.ID, t.end, now)
	})
	if err != nil {
		return err
	}
	rd.pos.Store(t.end)
	*sending, rd.saved, rd.savedAt = 0, t.end, time.Now()
	s.metrics.transactions.WithLabelValues(rd.reg.ID).Inc()
	s.metrics.events.WithLabelValues(rd.reg.ID).Add(float64(len(t.events)))
	return nil
}

// update runs a transaction that fails where another node holds the lease.
func (rd *reader) update(ctx context.Context, fn func(*storage.Tx) error) error {
	return rd.s.DB.Update(ctx, func(tx *storage.Tx) error {
		if err := rd.lease.Fence(tx); err != nil {
			return err
		}
		return fn(tx)
	})
}

// save stores the position, now and then, also while the server stops.
func (rd *reader) save(pos int64, now bool) error {
	if pos == rd.saved || !now && time.Since(rd.savedAt) < rd.s.tune.saveEvery {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := rd.update(ctx, func(tx *storage.Tx) error { return tx.SetBridgePos(rd.reg.ID, pos, 0) })
	if err == nil {
		rd.saved, rd.savedAt = pos, time.Now()
	}
	return err
}
