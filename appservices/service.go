package appservices

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"hansa/homeserver/account"
	"hansa/homeserver/clientsync"
	"hansa/homeserver/ephemeral"
	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/outbound"
	"hansa/policy"
	"hansa/storage"
)

// Deps is what a Service needs.
type Deps struct {
	DB       *storage.DB
	Stream   *stream.Stream
	Policy   *policy.Engine
	Accounts *account.Service
	// Sync tells what a user may see.
	Sync *clientsync.Service
	// Ephemeral is who is typing and present.
	Ephemeral *ephemeral.Service
	// Out opens connections to bridges.
	Out *outbound.Client
	// Directory holds the registration files; empty for none.
	Directory string
	Tenants   []matrix.ServerName
	Log       *logrus.Entry
	Now       func() time.Time
	// Registerer gets the metrics; nil for none.
	Registerer prometheus.Registerer
}

// Service knows the bridges and tells them of what concerns them. Its methods may be called from any goroutine.
type Service struct {
	Deps
	log     *logrus.Entry
	metrics *metrics
	queries *queries
	tune    tune

	set     atomic.Pointer[set]
	changed chan struct{} // tells Run that registrations or suspensions have changed

	bots  sync.Mutex           // held while the account of a bot is made; comes before mu
	retry map[string]time.Time // when it is tried again to make one; guarded by bots

	mu        sync.Mutex // guards all below
	problem   error      // why the files that are there are not what is active
	from      string     // fingerprint of the files that New read
	suspended map[string]bool
	ensured   map[string][sha256.Size]byte // bridges whose bot has an account, by what the registration was then
	readers   map[string]*reader           // those that run on this node
}

// botRetry is how often it is tried to make the account of a bot that cannot be made.
const botRetry = time.Second

// New reads the registrations. What is wrong with them is an error: a server that starts without a bridge would let others take its names.
func New(ctx context.Context, d Deps) (*Service, error) {
	if d.Now == nil {
		d.Now = time.Now
	}
	s := &Service{Deps: d, log: d.Log.WithField("pkg", "appservices"), changed: make(chan struct{}, 1), suspended: map[string]bool{},
		ensured: map[string][sha256.Size]byte{}, retry: map[string]time.Time{}, readers: map[string]*reader{}, tune: defaultTune()}
	s.queries = newQueries(s)
	var err error
	if s.metrics, err = newMetrics(d.Registerer, s); err != nil {
		return nil, err
	}
	s.from = fingerprint(d.Directory)
	loaded, warnings, err := load(d.Directory, d.Tenants)
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		s.log.WithField("err", w).Warn("registration of a bridge")
	}
	if err := s.know(ctx, loaded); err != nil {
		return nil, err
	}
	s.set.Store(loaded)
	return s, nil
}

// know makes the database know of the bridges, and reads which are suspended.
func (s *Service) know(ctx context.Context, loaded *set) error {
	var rows []storage.Bridge
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) { rows, err = tx.LoadBridges(); return err })
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, b := range rows {
		known[b.ID] = true
		if r := loaded.byID[b.ID]; r != nil && r.Tenant != b.Tenant {
			return errors.New(r.File + ": the id " + r.ID + " was that of a bridge of " + string(b.Tenant) + "; take another one")
		}
	}
	missing := false
	for id := range loaded.byID {
		missing = missing || !known[id]
	}
	if missing {
		err = s.DB.Update(ctx, func(tx *storage.Tx) error {
			for _, r := range loaded.list {
				if err := tx.TouchBridge(r.ID, r.Tenant); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	s.setSuspended(rows)
	return nil
}

func (s *Service) setSuspended(rows []storage.Bridge) {
	now := map[string]bool{}
	for _, b := range rows {
		if b.Suspended {
			now[b.ID] = true
		}
	}
	s.mu.Lock()
	s.suspended = now
	s.mu.Unlock()
}

func (s *Service) isSuspended(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.suspended[id]
}

// Refresh reads again which bridges are suspended. It is called when the log says that this has changed.
func (s *Service) Refresh(ctx context.Context) error {
	var rows []storage.Bridge
	if err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) { rows, err = tx.LoadBridges(); return err }); err != nil {
		return err
	}
	s.setSuspended(rows)
	s.kick()
	return nil
}

func (s *Service) kick() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Reload reads the registration files again. When something is wrong with them nothing changes, and the error says what.
func (s *Service) Reload(ctx context.Context) error {
	loaded, warnings, err := load(s.Directory, s.Tenants)
	if err == nil {
		err = s.know(ctx, loaded)
	}
	s.mu.Lock()
	s.problem = err
	s.mu.Unlock()
	if err != nil {
		s.log.WithError(err).Error("the registrations of bridges cannot be used; those before stay")
		return err
	}
	for _, w := range warnings {
		s.log.WithField("err", w).Warn("registration of a bridge")
	}
	s.set.Store(loaded)
	s.queries.forget()
	s.Accounts.ForgetParties() // names may be reserved now that were not, or the other way round
	s.log.WithField("bridges", len(loaded.list)).Info("registrations of bridges are active")
	s.kick()
	return nil
}

// Find returns the bridge that a token belongs to.
func (s *Service) Find(ctx context.Context, token string) (*account.Bridge, bool) {
	r := s.set.Load().byToken[sha256.Sum256([]byte(token))]
	if r == nil || s.isSuspended(r.ID) {
		return nil, false
	}
	s.ensureBot(ctx, r)
	s.heard(r.ID)
	return r.Bridge(), true
}

// FindByID returns a bridge that is not suspended.
func (s *Service) FindByID(id string) (*account.Bridge, bool) {
	r := s.set.Load().byID[id]
	if r == nil || s.isSuspended(id) {
		return nil, false
	}
	return r.Bridge(), true
}

// ensureBot makes the account of a bridge's bot before it is needed for the first time.
func (s *Service) ensureBot(ctx context.Context, r *Registration) {
	if s.hasBot(r) {
		return
	}
	s.bots.Lock() // who comes meanwhile waits
	defer s.bots.Unlock()
	now := s.Now()
	if s.hasBot(r) || s.retry[r.ID].After(now) {
		return
	}
	if err := s.Accounts.EnsureBot(ctx, r.Bridge()); err != nil {
		s.retry[r.ID] = now.Add(botRetry)
		s.log.WithField("bridge", r.ID).WithError(err).Error("a bridge cannot have its bot")
		return
	}
	s.mu.Lock()
	s.ensured[r.ID] = r.print
	s.mu.Unlock()
}

func (s *Service) hasBot(r *Registration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ensured[r.ID] == r.print
}

// Exclusive tells whether a user ID is reserved for a bridge.
func (s *Service) Exclusive(u matrix.UserID) bool {
	return s.set.Load().reserved(string(u), u.Server(), usersOf) != nil
}

// Owner is the bridge that a user without an account would belong to.
func (s *Service) Owner(u matrix.UserID) (id string, ok bool) {
	current := s.set.Load()
	if r := current.reserved(string(u), u.Server(), usersOf); r != nil {
		return r.ID, true
	}
	for _, r := range current.list {
		if r.OwnsUser(u) {
			return r.ID, true
		}
	}
	return "", false
}

// CheckAlias refuses an alias that is reserved for another bridge than b, or that lies outside of the namespaces of b. nil is everybody else.
//
// spec: application-service-api#server-admin-style-permissions
func (s *Service) CheckAlias(b *account.Bridge, alias matrix.RoomAlias) error {
	current := s.set.Load()
	owner := current.reserved(string(alias), alias.Server(), aliasesOf)
	refused := matrix.Errorf(http.StatusBadRequest, matrix.CodeExclusive, "The alias is reserved for an application service.")
	if b == nil {
		if owner != nil {
			return refused
		}
		return nil
	}
	if owner != nil && owner.ID != b.ID {
		return refused
	}
	if r := current.byID[b.ID]; r == nil || !r.OwnsAlias(alias) {
		return matrix.Errorf(http.StatusBadRequest, matrix.CodeExclusive, "The alias lies outside of the namespaces of this application service.")
	}
	return nil
}
