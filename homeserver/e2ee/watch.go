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

// watch knows of devices that sync how many keys they have left, so that a response costs no query. It follows the log as far as
// it has come whenever it is asked, which is what makes it right when other nodes write.
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
		if e := &entries[i]; e.Kind == storage.KindNotice && e.Name == storage.NoticeOneTimeKeys {
			for _, st := range w.users[matrix.UserID(e.Ref)] {
				st.counts, st.dirty = nil, e.Pos
			}
		}
	}
}

// find returns the counts of a device, nil when they are not known.
func (w *watch) find(user matrix.UserID, device matrix.DeviceID) *storage.KeyCounts {
	w.mu.Lock()
	defer w.mu.Unlock()
	if st := w.users[user][device]; st != nil {
		return st.counts
	}
	return nil
}

// load reads the counts of a device from the database. From before it reads, the log is followed for the device, so that nothing
// is missed in between.
func (w *watch) load(ctx context.Context, user matrix.UserID, device matrix.DeviceID) (*storage.KeyCounts, error) {
	w.mu.Lock()
	st := w.users[user][device]
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
	counts, pos, err := w.s.loadCounts(ctx, user, device)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if st.dirty <= pos {
		st.counts = counts
	}
	return counts, nil
}

// loadCounts reads the counts of a device, and the position at which they were true.
func (s *Service) loadCounts(ctx context.Context, user matrix.UserID, device matrix.DeviceID) (*storage.KeyCounts, int64, error) {
	var pos int64
	var counts storage.KeyCounts
	err := s.DB.View(ctx, func(tx *storage.Tx) (err error) {
		if pos, err = tx.Position(); err != nil {
			return err
		}
		counts, err = tx.LoadKeyCounts(user, device)
		return err
	})
	counts.OneTime = withDefault(counts.OneTime)
	return &counts, pos, err
}

// Counts returns how many one-time keys a device has left, by algorithm, and for which algorithms its fallback key is unused.
// Both are shared: read them only.
//
// spec: client-server-api#e2e-extensions-to-sync
func (s *Service) Counts(ctx context.Context, user matrix.UserID, device matrix.DeviceID) (map[string]int, []string, error) {
	if s.Stream == nil {
		c, _, err := s.loadCounts(ctx, user, device)
		return c.OneTime, c.Unused, err
	}
	if err := s.watch.catchUp(ctx); err != nil {
		return nil, nil, err
	}
	c := s.watch.find(user, device)
	if c == nil {
		var err error
		if c, err = s.watch.load(ctx, user, device); err != nil {
			return nil, nil, err
		}
	}
	return c.OneTime, c.Unused, nil
}
