// Package keyring knows the keys that servers sign with: our tenants' own, which it publishes, and those of others, which it fetches from
// them, keeps in the database and in memory, and judges by the time that they are for.
//
// Two questions are asked of a Ring. PublicKey, or Collect for many, is about an event: the key must have been valid when the event says it was made, and keys
// that a server has retired count up to their end. RequestKey is about a request that is going on: only a current key of a server counts,
// and an old one never does.
//
// Keys come from the server itself over TLS. Where it may not be asked, or does not answer, notaries are asked, for events only: who has brought
// the events, and the servers that have talked to us last. Collect asks them about many servers at once. What a notary says never replaces
// what the server itself has said. The same key ID with other bytes is another key: the old bytes keep the period that has passed, and it
// is an alarm. No answer makes a key valid for longer than a week.
//
// Fetching is bounded: nothing is asked of a server that Allowed does not allow; one question per server at a time; a few per server and
// minute, fewer after failures; a few per second altogether. Memory holds the most recently used servers, the database a bounded number of
// keys.
//
// spec: server-server-api#retrieving-server-keys
// spec: server-server-api#publishing-keys
// spec: server-server-api#querying-keys-through-another-server
package keyring

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/matrix/signing"
	"hansa/outbound"
	"hansa/storage"
)

// Servers sends requests to servers. It is declared here so that tests can answer; *resolve.Resolver is one.
type Servers interface {
	// Do sends a request to a server, wherever it is.
	Do(ctx context.Context, server matrix.ServerName, r outbound.Request) (*outbound.Response, error)
}

// Deps is what a Ring needs.
type Deps struct {
	DB *storage.DB
	// Keys are what the tenants sign with.
	Keys map[matrix.ServerName]signing.Key
	// Others are further keys of the tenants' key files: those used before, which are published as old, and those to come.
	Others map[matrix.ServerName][]signing.Key
	// Servers reaches other servers; nil means that nothing is ever fetched.
	Servers Servers
	// Allowed says whether a server may be asked for its keys: nil where any tenant has to do with it, in either direction. It is asked before
	// anything is resolved. See AnyTenant.
	Allowed    func(ctx context.Context, server matrix.ServerName) error
	Log        *logrus.Entry
	Registerer prometheus.Registerer
	Now        func() time.Time
	// CacheServers is how many servers stay in memory; 0 means 10,000. MaxRows is how many keys the database keeps; 0 means 500,000.
	CacheServers int
	MaxRows      int64
}

// The limits of keys.
const (
	// maxValidity is the longest that an answer counts.
	//
	// spec: rooms/v5#signing-key-validity-period
	maxValidity  = 7 * 24 * time.Hour
	maxBody      = 256 << 10
	maxVerify    = 32
	maxOld       = 512
	fetchTimeout = 20 * time.Second
	maxInFlight  = 32
)

// ErrNoKey is wrapped where a key is not known, not valid at the time, or cannot be had.
var ErrNoKey = errors.New("keyring: no such key")

// Ring finds keys. Its methods may be called from any goroutine.
type Ring struct {
	Deps
	log     *logrus.Entry
	flight  stream.Flight[struct{}]
	slots   chan struct{} // one for each question that is on its way
	metrics *metrics

	mu      sync.Mutex // guards the rest; held for memory only
	servers *lru
	budget  *lru   // of *budget, by server
	total   bucket // of all questions
	own     map[matrix.ServerName]*ownKeys
	talkers []matrix.ServerName // never changed, only replaced; the latest first
	stored  int
}

// New returns a Ring that is ready to use.
func New(d Deps) (*Ring, error) {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Log == nil {
		d.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	if d.CacheServers == 0 {
		d.CacheServers = 10000
	}
	if d.MaxRows == 0 {
		d.MaxRows = 500000
	}
	m, err := newMetrics(d.Registerer)
	if err != nil {
		return nil, err
	}
	r := &Ring{Deps: d, log: d.Log.WithField("pkg", "keyring"), slots: make(chan struct{}, maxInFlight), metrics: m,
		servers: newLRU(d.CacheServers), budget: newLRU(d.CacheServers), own: map[matrix.ServerName]*ownKeys{}}
	for tenant, key := range d.Keys {
		r.own[tenant] = &ownKeys{current: key, others: d.Others[tenant]}
	}
	return r, nil
}

// AnyTenant makes an Allowed of questions about one tenant and a server: it allows what any of them allows. Of errors, one that is no plain
// refusal counts most, so that what cannot be decided is tried again.
func AnyTenant(tenants []matrix.ServerName, ask ...func(ctx context.Context, tenant, server matrix.ServerName) error) func(context.Context, matrix.ServerName) error {
	tenants = slices.Clone(tenants)
	slices.Sort(tenants)
	return func(ctx context.Context, server matrix.ServerName) error {
		var worst error
		for _, tenant := range tenants {
			for _, fn := range ask {
				err := fn(ctx, tenant, server)
				if err == nil {
					return nil
				}
				var m *matrix.Error
				if worst == nil || !errors.As(err, &m) || m.Status != http.StatusForbidden {
					worst = err
				}
			}
		}
		if worst == nil {
			worst = matrix.Forbidden("No tenant has to do with %s.", server)
		}
		return worst
	}
}

// PublicKey returns a server's key as it was valid at a time in ms, for a signature on an event; 0 means that the time does not count.
// It fetches what is not known.
//
// spec: server-server-api#validating-hashes-and-signatures-on-received-events
func (r *Ring) PublicKey(ctx context.Context, server matrix.ServerName, id signing.KeyID, at int64) (signing.PublicKey, error) {
	return r.find(ctx, server, id, r.fetchAnyhow, func(keys []storage.ServerKey) (*storage.ServerKey, bool) { return forEvent(keys, id, at) })
}

// RequestKey returns a key that a server signs requests with now. Keys that it has retired, or has not confirmed within its time, are none.
//
// spec: server-server-api#request-authentication
func (r *Ring) RequestKey(ctx context.Context, server matrix.ServerName, id signing.KeyID) (signing.PublicKey, error) {
	now := r.Now().UnixMilli()
	key, err := r.find(ctx, server, id, r.fetchDirect, func(keys []storage.ServerKey) (*storage.ServerKey, bool) { return forRequest(keys, id, server, now) })
	if err == nil && !r.isOwn(server) {
		r.noteTalker(server)
	}
	return key, err
}

// maxTalkers is how many servers that talked to us are remembered, maxNotaries how many of them are asked about one server.
const (
	maxTalkers  = 16
	maxNotaries = 3
)

// noteTalker remembers a server that talks to us as one that may be asked as a notary.
func (r *Ring) noteTalker(server matrix.ServerName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.talkers) > 0 && r.talkers[0] == server {
		return
	}
	list := append(make([]matrix.ServerName, 0, maxTalkers), server)
	for _, t := range r.talkers {
		if t != server && len(list) < maxTalkers {
			list = append(list, t)
		}
	}
	r.talkers = list
}

// fetchAnyhow asks a server for its keys, and failing that those who have talked to us last.
func (r *Ring) fetchAnyhow(ctx context.Context, server matrix.ServerName, seen uint64) error {
	err := r.fetchDirect(ctx, server, seen)
	if err == nil {
		return nil
	}
	r.mu.Lock()
	talkers := r.talkers
	r.mu.Unlock()
	asked := 0
	for _, notary := range talkers {
		if notary == server || asked == maxNotaries || ctx.Err() != nil {
			continue
		}
		asked++
		if r.fetchVia(ctx, notary, server) == nil {
			return nil
		}
	}
	return err
}

// chooser picks one of the keys of a server; sure is false where asking again may bring a better one.
type chooser func(keys []storage.ServerKey) (k *storage.ServerKey, sure bool)

func (r *Ring) find(ctx context.Context, server matrix.ServerName, id signing.KeyID, fetch func(_ context.Context, _ matrix.ServerName, seen uint64) error, choose chooser) (signing.PublicKey, error) {
	if id == signing.PolicyServerKeyID {
		return signing.PublicKey{}, fmt.Errorf("%w: %s of %s is the policy server's", ErrNoKey, id, server)
	}
	seen := r.answers(server)
	keys, err := r.load(ctx, server)
	if err != nil {
		return signing.PublicKey{}, err
	}
	k, sure := choose(keys)
	if !sure && !r.isOwn(server) {
		if err := fetch(ctx, server, seen); err != nil && k == nil {
			return signing.PublicKey{}, fmt.Errorf("%w: %s of %s: %w", ErrNoKey, id, server, err)
		}
		if keys, err = r.load(ctx, server); err != nil {
			return signing.PublicKey{}, err
		}
		k, _ = choose(keys)
	}
	if k == nil || len(k.Public) != len(signing.PublicKey{}) {
		return signing.PublicKey{}, fmt.Errorf("%w: %s of %s", ErrNoKey, id, server)
	}
	return signing.PublicKey(k.Public), nil
}

func (r *Ring) isOwn(server matrix.ServerName) bool {
	_, ok := r.own[server]
	return ok
}

// forEvent picks the key for an event of a time. Of several with the same ID that which came last counts, and what the server has said
// itself before what a notary has said.
func forEvent(keys []storage.ServerKey, id signing.KeyID, at int64) (*storage.ServerKey, bool) {
	var best *storage.ServerKey
	for i := range keys {
		k := &keys[i]
		if k.KeyID != string(id) || at != 0 && (at < k.ValidFrom || at > k.ValidUntil) {
			continue
		}
		if best == nil || direct(k) && !direct(best) || direct(k) == direct(best) && k.ValidFrom > best.ValidFrom {
			best = k
		}
	}
	return best, best != nil
}

func direct(k *storage.ServerKey) bool { return k.Source == k.Server }

// forRequest picks a current key that the server itself has confirmed.
func forRequest(keys []storage.ServerKey, id signing.KeyID, server matrix.ServerName, now int64) (*storage.ServerKey, bool) {
	for i := range keys {
		k := &keys[i]
		if k.KeyID == string(id) && !k.Old && k.Source == server && now >= k.ValidFrom && now <= k.ValidUntil {
			return k, true
		}
	}
	return nil, false
}

// load returns what memory or the database holds about a server.
func (r *Ring) load(ctx context.Context, server matrix.ServerName) ([]storage.ServerKey, error) {
	r.mu.Lock()
	if o, ok := r.own[server]; ok {
		defer r.mu.Unlock()
		return o.list(server, r.Now()), nil
	}
	if v, ok := r.servers.get(string(server)); ok {
		r.mu.Unlock()
		return v.([]storage.ServerKey), nil
	}
	r.mu.Unlock()
	var keys []storage.ServerKey
	err := r.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		keys, err = tx.LoadServerKeys(server)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("load the keys of %s: %w", server, err)
	}
	if len(keys) > 0 { // names that nobody knows take no room
		r.mu.Lock()
		r.servers.put(string(server), keys)
		r.mu.Unlock()
	}
	return keys, nil
}
