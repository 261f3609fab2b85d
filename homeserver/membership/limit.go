package membership

import (
	"context"
	"sync"
	"time"

	"hansa/homeserver/ratelimit"
	"hansa/matrix"
)

// limits bound how fast people are invited: by one user, into one room, and one user by all others.
//
// spec: client-server-api#rate-limiting
type limits struct {
	enabled            bool
	from, into, toward *ratelimit.Buckets
}

func newLimits(enabled bool, now func() time.Time) *limits {
	return &limits{enabled: enabled, from: ratelimit.New(200, 2*time.Second, now), into: ratelimit.New(300, time.Second, now),
		toward: ratelimit.New(60, 5*time.Second, now)}
}

// invite counts one invitation. room is empty for a room that is about to be made.
func (l *limits) invite(from, target matrix.UserID, room matrix.RoomID) error {
	if !l.enabled {
		return nil
	}
	wait := time.Duration(0)
	take := func(b *ratelimit.Buckets, key string) {
		w, _ := b.Take(key)
		wait = max(wait, w)
	}
	take(l.from, string(from))
	take(l.toward, string(target))
	if room != "" {
		take(l.into, string(room))
	}
	if wait > 0 {
		return ratelimit.TooMany(wait)
	}
	return nil
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
