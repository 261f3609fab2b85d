package room

import (
	"container/list"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/matrix/signing"
	"hansa/policy"
	"hansa/storage"
)

// Parties tells who a user is to policy. It is declared here because accounts stand above rooms.
type Parties interface {
	// Party returns the facts about one user of any server.
	Party(ctx context.Context, user matrix.UserID) (*policy.Party, error)
	// Parties returns the facts about many users, each of whom has an entry in the answer.
	Parties(ctx context.Context, users []matrix.UserID) (map[matrix.UserID]*policy.Party, error)
}

// Keyring finds the keys that servers sign events with. It is declared here because federation stands above rooms.
type Keyring interface {
	// PublicKey returns a server's key as it was valid at a time in ms, or an error where there is none.
	PublicKey(ctx context.Context, server matrix.ServerName, id signing.KeyID, at int64) (signing.PublicKey, error)
	// Collect fetches keys of many servers that are not known, each with the newest time that it is needed for, 0 where that does not count.
	// from has brought what they have signed. It returns what finds them without fetching more.
	Collect(ctx context.Context, from matrix.ServerName, want map[matrix.ServerName]map[signing.KeyID]int64) func(matrix.ServerName, signing.KeyID, int64) (signing.PublicKey, error)
}

// Deps is what a Service needs.
type Deps struct {
	DB      *storage.DB
	Stream  *stream.Stream
	Policy  *policy.Engine
	Parties Parties
	// Keys are the signing keys of the tenants of this deployment.
	Keys map[matrix.ServerName]signing.Key
	// Keyring finds the keys of other servers; keys of tenants are found without it. May be nil.
	Keyring Keyring
	// Remote asks other servers for what their events lack. May be nil: then nothing is fetched.
	Remote Remote
	Log    *logrus.Entry
	Now    func() time.Time
	Random io.Reader
	// CacheRooms is how many rooms stay in memory; 0 means 2,000.
	CacheRooms int
}

// ErrUnknownRoom is returned where a room does not exist here.
var ErrUnknownRoom = errors.New("room: unknown room")

// ErrBusy is wrapped where others changed a room faster than a request could: nothing was done, and the request may be made again.
var ErrBusy = errors.New("room: changed by others all the time")

// Service is the way into rooms. Its methods may be called from any goroutine.
type Service struct {
	Deps
	log *logrus.Entry

	mu     sync.Mutex
	rooms  map[matrix.RoomID]*list.Element // of *live, most recently used first
	used   *list.List
	audits Audits // guarded by mu
	// auditEvents is how many of a room's newest events an audit goes through.
	auditEvents int
	txns        *recentTxns
	nodes       *nodeCache
	// resolutions are the newest results of state resolution.
	resolutions *resolutions
	// graph remembers the auth graph as far as it was read lately.
	graph   *graph
	lookups *lookups
	labour  labour
	// budget limits what is fetched from other servers.
	budget *budget
	// created is the time of the newest create event.
	created atomic.Int64
}

// New returns a Service that is ready to use.
func New(d Deps) *Service {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Random == nil {
		d.Random = rand.Reader
	}
	if d.CacheRooms == 0 {
		d.CacheRooms = 2000
	}
	return &Service{Deps: d, log: d.Log.WithField("pkg", "room"), rooms: map[matrix.RoomID]*list.Element{}, used: list.New(),
		txns: newRecentTxns(20000), nodes: newNodeCache(20000), resolutions: newResolutions(2000), graph: newGraph(), lookups: newLookups(), labour: newLabour(), budget: &budget{buckets: map[string]*bucket{}},
		auditEvents: maxAuditEvents}
}

// IsLocal tells whether a server name is a tenant of this deployment.
func (s *Service) IsLocal(name matrix.ServerName) bool {
	_, ok := s.Keys[name]
	return ok
}

// live returns the room in memory, loading it when it is cold.
func (s *Service) live(ctx context.Context, id matrix.RoomID) (*live, error) {
	s.mu.Lock()
	l, cold := s.find(id)
	s.mu.Unlock()
	if cold {
		s.fill(ctx, []*live{l})
	}
	select {
	case <-l.loaded:
		return l, l.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// find returns the cache's entry of a room, a new one where it is cold: then the caller has to fill it. The caller holds s.mu.
func (s *Service) find(id matrix.RoomID) (l *live, cold bool) {
	if e, ok := s.rooms[id]; ok {
		s.used.MoveToFront(e)
		return e.Value.(*live), false
	}
	l = newLive(id)
	s.keep(l)
	return l, true
}

// fill loads cold rooms. It does so whether or not the request goes on, and however long it takes: others may wait for the same rooms.
func (s *Service) fill(ctx context.Context, cold []*live) {
	ctx = context.WithoutCancel(ctx)
	s.load(ctx, cold)
	s.finish(ctx, cold)
}

// finish gives rooms that were read to those who wait for them.
func (s *Service) finish(ctx context.Context, cold []*live) {
	var behind []*live
	for _, l := range cold {
		if !l.settle() {
			s.drop(l) // who comes from now on reads it anew; for who came before, what is read next is new enough
			behind = append(behind, l)
		}
	}
	if len(behind) > 0 {
		s.load(ctx, behind)
	}
	for _, l := range cold {
		close(l.loaded)
		if l.err != nil {
			s.drop(l)
		}
	}
}

// Warm brings many rooms into memory with a few queries. What cannot be loaded is tried again by whoever needs it.
func (s *Service) Warm(ctx context.Context, ids []matrix.RoomID) {
	var cold []*live
	s.mu.Lock()
	for _, id := range ids {
		if l, isCold := s.find(id); isCold {
			cold = append(cold, l)
		}
	}
	s.mu.Unlock()
	for len(cold) > 0 {
		n := min(len(cold), 100)
		s.fill(ctx, cold[:n])
		cold = cold[n:]
	}
}

// keep puts a room into the cache and lets the least recently used one go. The caller holds s.mu.
func (s *Service) keep(l *live) {
	s.rooms[l.id] = s.used.PushFront(l)
	for s.used.Len() > s.CacheRooms {
		old := s.used.Remove(s.used.Back()).(*live)
		delete(s.rooms, old.id)
	}
}

// drop forgets what is known of a room, after another node moved its head or an append failed.
func (s *Service) drop(l *live) {
	s.mu.Lock()
	if e, ok := s.rooms[l.id]; ok && e.Value.(*live) == l {
		s.used.Remove(e)
		delete(s.rooms, l.id)
	}
	s.mu.Unlock()
	l.mu.Lock()
	l.gone = true
	l.mu.Unlock()
}

// forget drops a room, if it is in memory, and what is remembered of states after events.
func (s *Service) forget(id matrix.RoomID) {
	s.graph.events.clear()
	s.mu.Lock()
	el, ok := s.rooms[id]
	s.mu.Unlock()
	if ok {
		s.drop(el.Value.(*live))
	}
}

// Refresh makes rooms in memory agree with what other nodes have written: the caller reads the log and names each room whose
// event this process did not append itself.
func (s *Service) Refresh(entries []storage.Entry) {
	for i := range entries {
		e := &entries[i]
		if e.Kind == storage.KindNotice && e.Name == storage.NoticeMended {
			s.forget(matrix.RoomID(e.Ref))
		}
		if e.Kind != storage.KindEvent {
			continue
		}
		if e.Event.Type == typeRedaction {
			s.graph.events.forget(e.Event.Redacts)
		}
		s.mu.Lock()
		el, ok := s.rooms[e.RoomID]
		s.mu.Unlock()
		if !ok {
			continue
		}
		if l := el.Value.(*live); !l.hear(e.Event) {
			s.drop(l)
		}
	}
}

func (s *Service) random(n int) string {
	b := make([]byte, n)
	if _, err := io.ReadFull(s.Random, b); err != nil {
		panic("room: no randomness: " + err.Error())
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func (s *Service) nowMS() int64 { return s.Now().UnixMilli() }

// recentTxns remembers the results of the newest requests that carried a transaction ID, so that a retry costs no read. The
// database has all of them.
type recentTxns struct {
	mu    sync.Mutex
	max   int
	old   map[txnKey]matrix.EventID
	young map[txnKey]matrix.EventID
}

type txnKey struct {
	user       matrix.UserID
	device     matrix.DeviceID
	scope, txn string
}

func newRecentTxns(n int) *recentTxns {
	return &recentTxns{max: n / 2, old: map[txnKey]matrix.EventID{}, young: map[txnKey]matrix.EventID{}}
}

func (r *recentTxns) find(k txnKey) (matrix.EventID, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id, ok := r.young[k]; ok {
		return id, true
	}
	id, ok := r.old[k]
	return id, ok
}

func (r *recentTxns) put(k txnKey, id matrix.EventID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.young) >= r.max {
		r.old, r.young = r.young, make(map[txnKey]matrix.EventID, r.max)
	}
	r.young[k] = id
}

// unavailable turns errors of the storage into the answer that makes clients and peers try again.
func unavailable(err error) error {
	if errors.Is(err, storage.ErrUnavailable) {
		return storage.Unavailable(err)
	}
	return err
}
