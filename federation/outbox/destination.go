package outbox

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage"
)

// post is an event on its way to any number of servers.
type post struct {
	event *storage.Event
	pdu   jsontext.Value
}

// parts tells whether the event only takes people out of a room: those of the server that it is sent to, or those of the tenant.
func (p *post) parts(to pair) bool {
	e := p.event
	if e.Type != "m.room.member" || e.StateKey == nil || e.Sender.Server() != to.as {
		return false
	}
	switch event.Membership(e.Event) {
	case "leave", "ban":
		server := matrix.UserID(*e.StateKey).Server()
		return server == to.to || server == to.as
	}
	return false
}

// item is something in the log that concerns a server: an event, a receipt, or that an EDU was queued.
type item struct {
	pos     int64
	at      time.Time
	post    *post
	receipt *storage.Receipt
}

// state is what a destination is doing.
type state int

const (
	idle    state = iota
	waiting       // for its time: after a failure, or for company
	ready         // for a place
	sending
)

// Pools of places: for servers that answer well, for those that take their time, and for those that failed. late is for transactions that
// began among the fast ones and take long: nothing begins there.
const (
	fast = iota
	slow
	dead
	late
	pools
)

// destination is one server that a tenant sends to. session.mu guards it.
type destination struct {
	pair
	row    storage.Destination // what is, or is about to be, in the database
	stored storage.Destination // what is in the database
	dirty  bool
	drop   int64        // queued EDUs up to here are to be deleted
	saves  []chan error // those who wait until row is stored

	queue []item // what concerns the server after row.Pos; where it is behind, after scanned
	// behind is true while the queue is not all: what is missing is looked up. scan are the newest events of rooms that were
	// found up to scanned and are not sent yet; scanning is false when the next look-up is due, more is true when there are
	// more than were looked up. tail is true while the queue has all after scanned.
	behind, scanning, more, tail bool
	scan                         []int64
	scanned, scannedFrom         int64

	ephemeral []federation.EDU
	keys      []About // what the ephemeral EDUs are about

	state     state
	pool      int  // where the next transaction finds a place
	charged   int  // where the one under way has its place
	lazy      bool // waits for company only
	heard     bool // was tried again early in this pause
	forgotten bool
	asked     time.Time
	admitted  admission
	since     time.Time // when what waits began to wait
	due       time.Time
	place     int // in the heap of those who wait, -1 for none

	sending *transaction // nil while nothing is under way
	ours    bool         // row.Sending was chosen from the queue
	cancel  context.CancelFunc
	// limit is how many items a transaction has at most while one is searched for that the server refuses; 0 for no search.
	// refusal is the last refusal, same how often it came in a row.
	limit, same int
	refusal     string
}

// pending tells whether anything waits for the server.
func (d *destination) pending() bool {
	return d.behind || len(d.queue) > 0 || d.row.Sending > 0 || len(d.ephemeral) > 0 || d.sending != nil
}

// onlyLazy tells whether what waits can wait a little more.
func (d *destination) onlyLazy() bool {
	if d.behind || d.row.Sending > 0 || len(d.ephemeral) > 0 {
		return false
	}
	for i := range d.queue {
		if d.queue[i].receipt == nil {
			return false
		}
	}
	return true
}

// answer tells those who wait for the row to be stored.
func (d *destination) answer(err error) {
	for _, c := range d.saves {
		c <- err
	}
	d.saves = nil
}

// add puts an item into a destination's queue. The caller holds mu.
func (s *session) add(d *destination, it item) {
	if it.pos <= d.row.Pos {
		return // sent before a restart
	}
	if !d.pending() {
		d.since = it.at
	}
	switch {
	case d.behind && !d.tail:
	case len(d.queue) < s.o.tune.queue:
		d.queue = append(d.queue, it)
	case d.behind:
		d.queue, d.tail = nil, false
	default:
		s.fallBehind(d)
	}
	s.poke(d, it.receipt == nil)
}

// fallBehind forgets the queue: what is in it will be looked up. The caller holds mu.
func (s *session) fallBehind(d *destination) {
	d.queue, d.behind, d.row.Behind, d.tail, d.scanning, d.scan = nil, true, true, false, false, nil
	s.mark(d)
}

// poke makes a destination ready that has something to send. The caller holds mu.
func (s *session) poke(d *destination, now bool) {
	switch {
	case d.state == waiting && d.lazy && now:
		s.due.remove(d)
		s.enqueue(d)
	case d.state == idle && !now:
		s.later(d, s.o.tune.lazy, true)
	case d.state == idle:
		s.enqueue(d)
	default:
		return
	}
	s.poll()
}

// enqueue puts a destination among those that wait for a place. The caller holds mu.
func (s *session) enqueue(d *destination) {
	d.state, d.lazy = ready, false
	s.ready[d.pool] = append(s.ready[d.pool], d)
}

// later lets a destination wait. The caller holds mu.
func (s *session) later(d *destination, wait time.Duration, lazy bool) {
	d.state, d.lazy, d.heard, d.due = waiting, lazy, false, time.Now().Add(wait)
	heap.Push(&s.due, d)
	s.poll()
}

// poll makes schedule look again. It never blocks.
func (s *session) poll() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// schedule starts transactions when there is a place for them.
func (s *session) schedule(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(s.start(ctx))
		select {
		case <-ctx.Done():
			s.stop()
			return nil
		case <-s.wake:
		case <-timer.C:
		}
	}
}

// start starts what can be started, and returns how long to wait for what is due next.
func (s *session) start(ctx context.Context) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for len(s.due) > 0 && !s.due[0].due.After(now) {
		d := s.due[0]
		s.due.remove(d)
		s.enqueue(d)
	}
	for pool, most := range []int{s.o.tune.fast, s.o.tune.slow, s.o.tune.dead} {
		for len(s.ready[pool]) > 0 && s.running[pool] < most {
			d := s.ready[pool][0]
			s.ready[pool][0] = nil
			s.ready[pool] = s.ready[pool][1:]
			if d.forgotten {
				continue
			}
			s.running[pool]++
			d.state, d.charged = sending, pool
			dctx, cancel := context.WithCancel(ctx)
			d.cancel = cancel
			s.work.Go(func() {
				defer cancel()
				if err := stream.Guard(func() error { s.attempt(dctx, d); return nil }); err != nil {
					select {
					case s.bugs <- err:
					default: // one is enough
					}
				}
			})
		}
	}
	if len(s.due) == 0 {
		return time.Hour
	}
	return max(s.due[0].due.Sub(now), time.Millisecond)
}

// stop keeps anything more from being started.
func (s *session) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = [pools][]*destination{}
}

// slowDown moves a transaction that takes long away from the places of the fast.
func (s *session) slowDown(d *destination, t *transaction) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.sending == t && d.charged == fast && s.running[late] < s.o.tune.overflow {
		s.running[fast]--
		s.running[late]++
		d.charged = late
		s.poll()
	}
}

// settle decides what a destination does after a transaction. The caller holds mu.
func (s *session) settle(d *destination) {
	d.state, d.cancel, d.sending = idle, nil, nil
	if d.forgotten {
		return
	}
	if d.pending() {
		s.poke(d, !d.onlyLazy())
	}
}

// pause is how long to wait after a number of failures.
func (o *Outbox) pause(failures int64) time.Duration {
	wait := o.tune.pauseLast
	if failures < 32 {
		wait = min(wait, o.tune.pauseFirst<<max(failures-1, 0))
	}
	return wait/2 + rand.N(wait) // half as much to one and a half times
}

// dueHeap are the destinations that wait, the first to go on on top.
type dueHeap []*destination

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].place, h[j].place = i, j }

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	d, _ := x.(*destination)
	d.place = len(*h)
	*h = append(*h, d)
}

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	old := *h
	d := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	d.place = -1
	return d
}

func (h *dueHeap) remove(d *destination) {
	if d.place >= 0 {
		heap.Remove(h, d.place)
	}
}
