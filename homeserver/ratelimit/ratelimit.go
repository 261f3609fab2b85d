// Package ratelimit counts what somebody does: so much at once, then one more each time that an interval passes (token buckets).
//
// Buckets live in one process and are bounded in number. Somebody who reaches several nodes gets as many times more, which a limit
// has to bear.
package ratelimit

import (
	"math"
	"net/http"
	"sync"
	"time"

	"hansa/matrix"
)

// maxBuckets bounds how many keys are kept in mind. The fullest buckets, which limit nobody, go first.
const maxBuckets = 50_000

// Buckets are token buckets by key. Its methods may be called from any goroutine.
type Buckets struct {
	burst int
	every time.Duration
	now   func() time.Time

	mu sync.Mutex
	at map[string]time.Time // guarded by mu: when the bucket will be full again; absent means full
}

// New returns buckets of burst tokens each, to which one is added every so often.
func New(burst int, every time.Duration, now func() time.Time) *Buckets {
	return &Buckets{burst: burst, every: every, now: now, at: map[string]time.Time{}}
}

// Take uses one token. When there is none it returns how long to wait for one.
func (b *Buckets) Take(key string) (wait time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	full := b.at[key]
	if full.Before(now) {
		full = now
	}
	// A clock that jumped back must not lock anybody out.
	if most := now.Add(time.Duration(b.burst) * b.every); full.After(most) {
		full = most
	}
	next := full.Add(b.every)
	if over := next.Sub(now) - time.Duration(b.burst)*b.every; over > 0 {
		b.at[key] = full
		return over, false
	}
	if _, known := b.at[key]; !known && len(b.at) >= maxBuckets {
		b.evict(now)
	}
	b.at[key] = next
	return 0, true
}

// GiveBack returns a token that was used for nothing.
func (b *Buckets) GiveBack(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if full, ok := b.at[key]; ok {
		if full = full.Add(-b.every); full.After(b.now()) {
			b.at[key] = full
		} else {
			delete(b.at, key)
		}
	}
}

// Len is how many buckets are not full, as far as it is known.
func (b *Buckets) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.at)
}

// evict removes the fullest of a few buckets, and all full ones among them. The caller holds mu.
func (b *Buckets) evict(now time.Time) {
	fullest, best, n := "", time.Time{}, 0
	for key, full := range b.at {
		if !full.After(now) {
			delete(b.at, key)
		} else if best.IsZero() || full.Before(best) {
			fullest, best = key, full
		}
		if n++; n == 16 {
			break
		}
	}
	if len(b.at) >= maxBuckets {
		delete(b.at, fullest)
	}
}

// TooMany is 429 with the time after which to try again.
//
// spec: client-server-api#rate-limiting
func TooMany(wait time.Duration) *matrix.Error {
	ms := int64(math.Ceil(float64(wait) / float64(time.Millisecond)))
	return matrix.Errorf(http.StatusTooManyRequests, matrix.CodeLimitExceeded, "Too many requests; try again later.").With("retry_after_ms", max(ms, 1))
}
