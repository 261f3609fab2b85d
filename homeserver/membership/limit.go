package membership

import (
	"context"
	"math"
	"net/http"
	"sync"
	"time"

	"hansa/matrix"
)

// maxBuckets bounds how many senders, receivers and rooms are kept in mind.
const maxBuckets = 20000

// buckets count what somebody did: burst at once, then one more each time that every passes.
type buckets struct {
	burst float64
	every time.Duration

	mu   sync.Mutex
	fill map[string]bucket // guarded by mu; absent means empty
}

// bucket is how full it was when.
type bucket struct {
	level float64
	at    time.Time
}

// limits bound how fast people are invited: by one user, into one room, and one user by all others.
//
// spec: client-server-api#rate-limiting
type limits struct {
	enabled            bool
	now                func() time.Time
	from, into, toward *buckets
}

func newLimits(enabled bool, now func() time.Time) *limits {
	make := func(burst float64, every time.Duration) *buckets {
		return &buckets{burst: burst, every: every, fill: map[string]bucket{}}
	}
	return &limits{enabled: enabled, now: now, from: make(200, 2*time.Second), into: make(300, time.Second), toward: make(60, 5*time.Second)}
}

// invite counts one invitation. room is empty for a room that is about to be made.
func (l *limits) invite(from, target matrix.UserID, room matrix.RoomID) error {
	if !l.enabled {
		return nil
	}
	now := l.now()
	wait := max(l.from.take(string(from), now), l.toward.take(string(target), now))
	if room != "" {
		wait = max(wait, l.into.take(string(room), now))
	}
	if wait > 0 {
		ms := int64(math.Ceil(float64(wait) / float64(time.Millisecond)))
		return matrix.Errorf(http.StatusTooManyRequests, matrix.CodeLimitExceeded, "Too many invitations; try again later.").With("retry_after_ms", ms)
	}
	return nil
}

// take puts one into a bucket, or returns how long to wait until there is room for it.
func (b *buckets) take(key string, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, known := b.fill[key]
	f.level = max(0, f.level-max(0, float64(now.Sub(f.at)))/float64(b.every))
	f.at = now
	if f.level+1 > b.burst {
		b.fill[key] = f
		return time.Duration((f.level + 1 - b.burst) * float64(b.every))
	}
	if !known && len(b.fill) >= maxBuckets {
		b.forget(now)
	}
	f.level++
	b.fill[key] = f
	return 0
}

// forget drops the buckets that are empty by now, or, where there are none, some bucket. The caller holds mu.
func (b *buckets) forget(now time.Time) {
	for k, f := range b.fill {
		if float64(now.Sub(f.at))/float64(b.every) >= f.level {
			delete(b.fill, k)
		}
	}
	for k := range b.fill {
		if len(b.fill) < maxBuckets {
			return
		}
		delete(b.fill, k)
	}
}

// pace lets through so many a second.
type pace struct {
	every time.Duration
	now   func() time.Time

	mu   sync.Mutex
	next time.Time // guarded by mu
}

func newPace(perSecond int, now func() time.Time) *pace {
	return &pace{every: time.Second / time.Duration(perSecond), now: now}
}

// wait returns when it is the caller's turn.
func (p *pace) wait(ctx context.Context) error {
	p.mu.Lock()
	now := p.now()
	// A few may go at once after a pause.
	if least := now.Add(-10 * p.every); p.next.Before(least) {
		p.next = least
	}
	p.next = p.next.Add(p.every)
	d := p.next.Sub(now)
	p.mu.Unlock()
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
