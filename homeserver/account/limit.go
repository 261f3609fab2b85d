package account

import (
	"math"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"hansa/matrix"
)

// tooMany is 429 with the time after which to try again.
//
// spec: client-server-api#rate-limiting
func tooMany(retryMS int64) *matrix.Error {
	return matrix.Errorf(http.StatusTooManyRequests, matrix.CodeLimitExceeded, "Too many requests; try again later.").
		With("retry_after_ms", max(retryMS, 1))
}

// rate says how many tries there are at once, and how long it takes until there is one more.
type rate struct {
	burst int
	every time.Duration
}

// maxBuckets bounds each kind of bucket. The fullest ones, which limit nobody, go first.
const maxBuckets = 50_000

// buckets are token buckets by key.
type buckets struct {
	name string
	rate rate
	now  func() time.Time

	mu sync.Mutex
	at map[string]time.Time // guarded by mu: when the bucket will be full again; absent means full
}

func newBuckets(name string, now func() time.Time, burst int, every time.Duration) *buckets {
	return &buckets{name: name, rate: rate{burst, every}, now: now, at: map[string]time.Time{}}
}

// take uses one try. When there is none it returns how long to wait.
func (b *buckets) take(key string) (wait time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	full := b.at[key]
	if full.Before(now) {
		full = now
	}
	// A clock that jumped back must not lock anybody out.
	if most := now.Add(time.Duration(b.rate.burst) * b.rate.every); full.After(most) {
		full = most
	}
	next := full.Add(b.rate.every)
	if over := next.Sub(now) - time.Duration(b.rate.burst)*b.rate.every; over > 0 {
		b.at[key] = full
		return over, false
	}
	if _, known := b.at[key]; !known && len(b.at) >= maxBuckets {
		b.evict(now)
	}
	b.at[key] = next
	return 0, true
}

// giveBack returns a try that was no offence.
func (b *buckets) giveBack(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if full, ok := b.at[key]; ok {
		if full = full.Add(-b.rate.every); full.After(b.now()) {
			b.at[key] = full
		} else {
			delete(b.at, key)
		}
	}
}

// evict removes the fullest of a few buckets, and all full ones among them. The caller holds mu.
func (b *buckets) evict(now time.Time) {
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

// limits are the limits on guessing passwords and tokens and on making accounts. They count per process: an attacker who reaches
// several nodes gets as many times more tries, which changes nothing for a password that is worth its name.
type limits struct {
	enabled bool
	metrics *metrics
	// Failed logins, per account, per account and known address, per address, and per network of addresses.
	account, known, address, network *buckets
	// Registrations and look-ups of names and tokens, per network.
	register, lookup *buckets
}

func newLimits(enabled bool, now func() time.Time, m *metrics) *limits {
	return &limits{enabled: enabled, metrics: m,
		account:  newBuckets("account", now, 10, 15*time.Second),
		known:    newBuckets("known", now, 10, 15*time.Second),
		address:  newBuckets("address", now, 60, 2*time.Second),
		network:  newBuckets("network", now, 240, time.Second),
		register: newBuckets("register", now, 30, 10*time.Second),
		lookup:   newBuckets("lookup", now, 120, 500*time.Millisecond),
	}
}

// networkOf is what one party can easily rotate through: the /64 of an IPv6 address. An IPv4 address stands for itself.
func networkOf(ip netip.Addr) string {
	ip = ip.Unmap().WithZone("")
	if !ip.Is6() {
		return ip.String()
	}
	p, err := ip.Prefix(64)
	if err != nil {
		return ip.String()
	}
	return p.Masked().String()
}

// charge takes one try of a bucket.
func (l *limits) charge(b *buckets, key string) error {
	if !l.enabled {
		return nil
	}
	if wait, ok := b.take(key); !ok {
		l.metrics.refused.WithLabelValues(b.name).Inc()
		return tooMany(int64(math.Ceil(float64(wait) / float64(time.Millisecond))))
	}
	return nil
}

// attempt is one try to prove a password that was charged to its buckets.
type attempt struct {
	limits *limits
	from   []*buckets
	keys   []string
}

// begin charges an attempt on an account. known tells whether the account was used from the address before: then an attacker who
// has used up the tries of the account does not lock its owner out.
func (l *limits) begin(user matrix.UserID, c Client, known func() (bool, error)) (*attempt, error) {
	a := &attempt{limits: l}
	if !l.enabled {
		return a, nil
	}
	if err := a.charge(l.network, networkOf(c.IP)); err != nil {
		return nil, err
	}
	if err := a.charge(l.address, c.ip()); err != nil {
		a.forgive()
		return nil, err
	}
	err := a.charge(l.account, string(user))
	if err == nil {
		return a, nil
	}
	ok, kerr := known()
	if kerr != nil {
		return nil, kerr
	}
	if !ok {
		return nil, err
	}
	if err := a.charge(l.known, string(user)+" "+c.ip()); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *attempt) charge(b *buckets, key string) error {
	if err := a.limits.charge(b, key); err != nil {
		return err
	}
	a.from, a.keys = append(a.from, b), append(a.keys, key)
	return nil
}

// forgive gives the charges back: the attempt was right.
func (a *attempt) forgive() {
	for i, b := range a.from {
		b.giveBack(a.keys[i])
	}
}
