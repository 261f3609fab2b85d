package account

import (
	"net/netip"
	"time"

	"hansa/homeserver/ratelimit"
	"hansa/matrix"
)

// buckets are the buckets of one limit, by its name in the metrics.
type buckets struct {
	*ratelimit.Buckets
	name string
}

func newBuckets(name string, now func() time.Time, burst int, every time.Duration) *buckets {
	return &buckets{ratelimit.New(burst, every, now), name}
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
	if wait, ok := b.Take(key); !ok {
		l.metrics.refused.WithLabelValues(b.name).Inc()
		return ratelimit.TooMany(wait)
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
		b.GiveBack(a.keys[i])
	}
}
