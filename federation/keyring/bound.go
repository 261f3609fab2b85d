package keyring

import (
	"container/list"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa/matrix"
)

// lru keeps the most recently used values. The Ring's lock guards it.
type lru struct {
	max   int
	byKey map[string]*list.Element
	used  *list.List // of *lruEntry, most recently used first
}

type lruEntry struct {
	key   string
	value any
}

func newLRU(n int) *lru { return &lru{max: n, byKey: map[string]*list.Element{}, used: list.New()} }

func (l *lru) get(key string) (any, bool) {
	e, ok := l.byKey[key]
	if !ok {
		return nil, false
	}
	l.used.MoveToFront(e)
	return e.Value.(*lruEntry).value, true
}

func (l *lru) put(key string, v any) {
	if e, ok := l.byKey[key]; ok {
		e.Value.(*lruEntry).value = v
		l.used.MoveToFront(e)
		return
	}
	l.byKey[key] = l.used.PushFront(&lruEntry{key, v})
	if l.used.Len() > l.max {
		delete(l.byKey, l.used.Remove(l.used.Back()).(*lruEntry).key)
	}
}

// bucket is a token bucket.
type bucket struct {
	tokens float64
	last   time.Time
}

// take takes one token, of which perSecond come until there are most.
func (b *bucket) take(now time.Time, perSecond, most float64) bool {
	if b.last.IsZero() {
		b.tokens = most
	} else if d := now.Sub(b.last); d > 0 {
		b.tokens = min(most, b.tokens+d.Seconds()*perSecond)
	}
	b.last = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// How often servers are asked.
const (
	perServer      = 1.0 / 30 // questions per second to one server
	perServerBurst = 4
	perBatch       = 1.0 / 3 // questions about many servers per second to one notary
	perBatchBurst  = 24
	perSecond      = 20.0 // questions per second to all servers together
	totalBurst     = 200
	minBackoff     = 30 * time.Second
	maxBackoff     = 10 * time.Minute
)

// budget is what may still be asked of one server.
type budget struct {
	bucket
	failures int
	again    time.Time // not before, after a failure
	answers  uint64    // how many it has given
	// denied is the last refusal by policy.
	denied      error
	deniedUntil time.Time
}

var errBudget = errors.New("keyring: asked too often")

// spend takes leave to ask a server.
func (r *Ring) spend(server matrix.ServerName, rate, burst float64) error {
	now := r.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.budgetOf(server)
	if now.Before(b.again) || !b.take(now, rate, burst) || !r.total.take(now, perSecond, totalBurst) {
		r.metrics.fetches.WithLabelValues("spared").Inc()
		return errBudget
	}
	return nil
}

func (r *Ring) budgetOf(server matrix.ServerName) *budget {
	if v, ok := r.budget.get(string(server)); ok {
		return v.(*budget)
	}
	b := &budget{}
	r.budget.put(string(server), b)
	return b
}

// answers is how many answers a server has given since it was last forgotten. Who asks it for what it has not looked up after that asks in vain.
func (r *Ring) answers(server matrix.ServerName) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.budgetOf(server).answers
}

// settle notes how asking a server went.
func (r *Ring) settle(server matrix.ServerName, err error) {
	now := r.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.budgetOf(server)
	if err == nil {
		b.failures, b.again = 0, time.Time{}
		b.answers++
		r.metrics.fetches.WithLabelValues("ok").Inc()
		return
	}
	b.again = now.Add(min(minBackoff<<min(b.failures, 7), maxBackoff))
	b.failures++
	r.metrics.fetches.WithLabelValues("failed").Inc()
}

type metrics struct {
	fetches *prometheus.CounterVec
	reused  prometheus.Counter
	shared  prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hansa_keyring_fetches_total",
			Help: "Questions for keys of servers by result: ok, failed, spared (asked too often)."}, []string{"result"}),
		reused: prometheus.NewCounter(prometheus.CounterOpts{Name: "hansa_keyring_reused_ids_total",
			Help: "Key IDs that a server has used again for another key."}),
		shared: prometheus.NewCounter(prometheus.CounterOpts{Name: "hansa_keyring_shared_keys_total",
			Help: "Keys that a second server has begun to use: perhaps one server under two names."}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.fetches, m.reused, m.shared} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
