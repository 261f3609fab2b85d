package policy

import (
	"sync"
	"sync/atomic"
	"time"
)

// breaker holds back rules that ran into the deadline several times in a row, for a while, per tenant.
type breaker struct {
	hot atomic.Int32
	mu  sync.Mutex
	m   map[breakerKey]*breakerState // guarded by mu
}

type breakerKey struct {
	layer  *layer
	tenant string
}

type breakerState struct {
	slow  int
	until time.Time
}

const (
	breakerAfter = 5
	breakerPause = 5 * time.Second
)

func (b *breaker) open(k breakerKey, now time.Time) bool {
	if b.hot.Load() == 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.m[k]
	return s != nil && now.Before(s.until)
}

// fresh says whether the rules never ran into the deadline since they last did not.
func (b *breaker) fresh(k breakerKey) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.m[k] == nil
}

func (b *breaker) note(k breakerKey, err error, now time.Time) {
	slow := isDeadline(err)
	if !slow && b.hot.Load() == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.m[k]
	switch {
	case !slow && s == nil:
		return
	case !slow:
		delete(b.m, k)
	default:
		if s == nil {
			if b.m == nil {
				b.m = map[breakerKey]*breakerState{}
			}
			s = &breakerState{}
			b.m[k] = s
		}
		if s.slow++; s.slow >= breakerAfter {
			s.until = now.Add(breakerPause)
		}
	}
	b.hot.Store(int32(len(b.m)))
}

func (b *breaker) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.m = nil
	b.hot.Store(0)
}
