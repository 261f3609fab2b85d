package e2ee

import (
	"context"
	"sync"
	"sync/atomic"

	"hansa/matrix"
	"hansa/storage"
)

const (
	// maxWatched is how many devices are remembered; beyond it all are forgotten and read again.
	maxWatched = 50_000
	// maxBehind is how many positions are read to catch up; beyond it all is forgotten.
	maxBehind = 16_384
)

// watch knows of devices that sync how many keys they have left and which messages wait for them, so that a response without
// news costs no query. It follows the log as far as it has come whenever it is asked, which is what makes it right when other
// nodes write.
type watch struct {
	s    *Service
	seen atomic.Int64 // position up to which the log was read; moved by the holder of turn

	turn sync.Mutex // one goroutine at a time reads the log

	mu    sync.Mutex // guards what follows and all deviceStates
	users map[matrix.UserID]map[matrix.DeviceID]*deviceState
	size  int
}

type deviceState struct {
	counts *storage.KeyCounts // nil: not known
	dirty  int64              // newest position at which they changed, as far as was seen
	queue  bool               // first and last are known
	first  int64              // no message waits before this position; 0: none waits
	last   int64              // no message waits after this position
}

func newWatch(s *Service) *watch {
	w := &watch{s: s, users: map[matrix.UserID]map[matrix.DeviceID]*deviceState{}}
	if s.Stream != nil {
		w.seen.Store(s.Stream.Position())
	}
	return w
}

// catchUp reads the log up to where it is now.
func (w *watch) catchUp(ctx context.Context) error {
	target := w.s.Stream.Position()
	if w.seen.Load() >= target {
		return nil
	}
	w.turn.Lock()
	defer w.turn.Unlock()
	seen := w.seen.Load()
	if target-seen > maxBehind {
		w.mu.Lock()
		w.forget()
		w.mu.Unlock()
		w.seen.Store(target)
		return nil
	}
	for seen < target {
		entries, upto, err := w.s.Stream.Read(ctx, seen)
		if err != nil {
			return err
		}
		w.mu.Lock()
		w.apply(entries)
		w.mu.Unlock()
		seen = upto
		w.seen.Store(upto)
	}
	return nil
}

// forget drops everything. The caller holds mu.
func (w *watch) forget() {
	w.users, w.size = map[matrix.UserID]map[matrix.DeviceID]*deviceState{}, 0
}

func (w *watch) apply(entries []storage.Entry) {
	for i := range entries {
		e := &entries[i]
		switch {
		case e.Kind == storage.KindNotice && e.Name == storage.NoticeOneTimeKeys:
			for _, st := range w.users[matrix.UserID(e.Ref)] {
				st.counts, st.dirty = nil, e.Pos
			}
		case e.Kind == storage.KindToDevice:
			if st := w.users[e.UserID][e.DeviceID]; st != nil {
				if st.last = e.Pos; st.first == 0 {
					st.first = e.Pos
				}
			}
		}
	}
}

// find returns what is known of a device, nil where that is nothing. The caller holds mu.
func (w *watch) find(user matrix.UserID, device matrix.DeviceID) *deviceState {
	return w.users[user][device]
}

// load reads about a device from the database. From before it reads, the log is followed for the device, so that nothing is
// missed in between.
func (w *watch) load(ctx context.Context, user matrix.UserID, device matrix.DeviceID) (deviceState, error) {
	w.mu.Lock()
	st := w.find(user, device)
	if st == nil {
		if w.size >= maxWatched {
			w.forget()
		}
		st = &deviceState{}
		if w.users[user] == nil {
			w.users[user] = map[matrix.DeviceID]*deviceState{}
		}
		w.users[user][device] = st
		w.size++
	}
	w.mu.Unlock()
	now, pos, err := w.s.loadState(ctx, user, device)
	if err != nil {
		return deviceState{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if st.dirty <= pos {
		st.counts = now.counts
	}
	if !st.queue {
		st.queue = true
		if now.first != 0 && (st.first == 0 || now.first < st.first) {
			st.first = now.first
		}
		st.last = max(st.last, now.last)
	}
	now.first, now.last = st.first, st.last
	return now, nil
}

// loadState reads about a device, and the position at which that was true.
func (s *Service) loadState(ctx context.Context, user matrix.UserID, device matrix.DeviceID) (st deviceState, pos int64, err error) {
	err = s.DB.View(ctx, func(tx *storage.Tx) error {
		if pos, err = tx.Position(); err != nil {
			return err
		}
		counts, err := tx.LoadKeyCounts(user, device)
		if err != nil {
			return err
		}
		st = deviceState{counts: &counts, queue: true}
		st.first, st.last, err = tx.LoadToDeviceRange(user, device)
		return err
	})
	return st, pos, err
}

// state returns what is known of a device: its counts if wanted, its queue if not.
func (s *Service) state(ctx context.Context, user matrix.UserID, device matrix.DeviceID, counts bool) (deviceState, error) {
	if s.Stream == nil {
		st, _, err := s.loadState(ctx, user, device)
		return st, err
	}
	if err := s.watch.catchUp(ctx); err != nil {
		return deviceState{}, err
	}
	s.watch.mu.Lock()
	if st := s.watch.find(user, device); st != nil && (counts && st.counts != nil || !counts && st.queue) {
		known := *st
		s.watch.mu.Unlock()
		return known, nil
	}
	s.watch.mu.Unlock()
	return s.watch.load(ctx, user, device)
}

// Counts returns how many one-time keys a device has left, by algorithm, and for which algorithms its fallback key is unused.
// Both are shared: read them only.
//
// spec: client-server-api#e2e-extensions-to-sync
func (s *Service) Counts(ctx context.Context, user matrix.UserID, device matrix.DeviceID) (map[string]int, []string, error) {
	st, err := s.state(ctx, user, device, true)
	if err != nil {
		return nil, nil, err
	}
	return st.counts.OneTime, st.counts.Unused, nil
}
