package fedserver

import (
	"context"
	"sync"
	"time"

	"hansa/homeserver/ratelimit"
	"hansa/matrix"
)

// queueTimeout is how long a request waits for its turn.
const queueTimeout = 20 * time.Second

// gate lets a bounded number of requests through, each server's a bounded number of them. Those that wait are let in by turns of the
// servers, so that a server that sends much makes only itself wait.
type gate struct {
	perOrigin, perQueue int

	mu    sync.Mutex // guards everything below and the lanes
	free  int
	lanes map[matrix.ServerName]*lane
	turns []*lane // lanes in which somebody waits, the next one first
}

// lane is what one server has under way.
type lane struct {
	origin matrix.ServerName
	active int
	queue  []chan struct{} // closed when it is the request's turn
}

func newGate(total, perOrigin, perQueue int) *gate {
	return &gate{free: total, perOrigin: perOrigin, perQueue: perQueue, lanes: map[matrix.ServerName]*lane{}}
}

// enter waits for the turn of a request of a server. leave must be called when the request has ended.
func (g *gate) enter(ctx context.Context, origin matrix.ServerName) (leave func(), err error) {
	g.mu.Lock()
	l := g.lanes[origin]
	if l == nil {
		l = &lane{origin: origin}
		g.lanes[origin] = l
	}
	if len(l.queue) == 0 && l.active < g.perOrigin && g.free > 0 {
		l.active++
		g.free--
		g.mu.Unlock()
		return func() { g.leave(l) }, nil
	}
	if len(l.queue) >= g.perQueue {
		g.mu.Unlock()
		return nil, ratelimit.TooMany(time.Second)
	}
	turn := make(chan struct{})
	if l.queue = append(l.queue, turn); len(l.queue) == 1 {
		g.turns = append(g.turns, l)
	}
	g.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, queueTimeout)
	defer cancel()
	select {
	case <-turn:
		return func() { g.leave(l) }, nil
	case <-ctx.Done():
	}
	if g.giveUp(l, turn) {
		return nil, ratelimit.TooMany(5 * time.Second)
	}
	return func() { g.leave(l) }, nil // it was let in at the last moment
}

// giveUp takes a request out of the queue, and reports false where it was let in meanwhile.
func (g *gate) giveUp(l *lane, turn chan struct{}) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, t := range l.queue {
		if t == turn {
			l.queue = append(l.queue[:i], l.queue[i+1:]...)
			g.tidy(l)
			return true
		}
	}
	return false
}

func (g *gate) leave(l *lane) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l.active--
	g.free++
	g.tidy(l)
	for n := len(g.turns); n > 0 && g.free > 0; n-- {
		next := g.turns[0]
		g.turns = g.turns[1:]
		if len(next.queue) == 0 {
			continue
		}
		if next.active < g.perOrigin {
			close(next.queue[0])
			next.queue = next.queue[1:]
			next.active++
			g.free--
		}
		if len(next.queue) > 0 {
			g.turns = append(g.turns, next)
		}
	}
}

// tidy forgets a lane that nobody uses. The caller holds mu.
func (g *gate) tidy(l *lane) {
	if l.active == 0 && len(l.queue) == 0 && g.lanes[l.origin] == l {
		delete(g.lanes, l.origin)
	}
}

// budget bounds the bytes of bodies that are in memory before anybody knows who sent them, of one address and of all.
type budget struct {
	perKey int64

	mu   sync.Mutex // guards what follows
	free int64
	used map[string]int64
}

func newBudget(total, perKey int64) *budget {
	return &budget{free: total, perKey: perKey, used: map[string]int64{}}
}

// take reserves bytes, or reports false where there are none left.
func (b *budget) take(key string, n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > b.free || b.used[key]+n > b.perKey {
		return false
	}
	b.free -= n
	b.used[key] += n
	return true
}

func (b *budget) give(key string, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free += n
	if b.used[key] -= n; b.used[key] <= 0 {
		delete(b.used, key)
	}
}
