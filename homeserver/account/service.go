package account

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

// Policy is what accounts ask of the policy engine. It is declared here so that tests can answer in its place.
type Policy interface {
	// Decide answers one question.
	Decide(ctx context.Context, in *policy.Input) policy.Decision
	// Resolve makes a party of the facts about a user: it adds the pools that the tenant's files give, and whether the user is listed.
	Resolve(f policy.Facts) *policy.Party
	// Generation counts the changes of rules and data; what Resolve returned before one is stale.
	Generation() uint64
}

// Registration says who may make an account on a tenant.
const (
	RegistrationClosed = "closed"
	RegistrationToken  = "token"
	RegistrationOpen   = "open"
)

// Tenant is what accounts need to know of a hosted domain.
type Tenant struct {
	Name matrix.ServerName
	// Registration is RegistrationClosed, RegistrationToken or RegistrationOpen.
	Registration string
	// RegistrationTokens are tokens from a file, good for any number of accounts; the database may hold more.
	RegistrationTokens []string
	// SharedSecret lets a script make accounts; empty turns that off.
	SharedSecret []byte
}

// Limits turns the limits on guessing and registering on.
type Limits struct {
	Enabled bool
}

// Deps is what a Service needs.
type Deps struct {
	DB     *storage.DB
	Policy Policy
	// Tenant finds a hosted domain.
	Tenant func(matrix.ServerName) (Tenant, bool)
	Log    *logrus.Entry
	Now    func() time.Time
	Rand   io.Reader
	Limits Limits
	// Registerer gets the metrics; nil for none.
	Registerer prometheus.Registerer
	// Hash is the cost of passwords; the zero value is DefaultHashing.
	Hash Hashing
	// TokenLife is how long the access token of a client that can refresh is good; 0 means one hour.
	TokenLife time.Duration

	// Remote asks other servers for profiles of their users. May be nil.
	Remote Remote

	// Exclusive tells whether a user ID lies in the exclusive namespace of an application service. May be nil.
	Exclusive func(matrix.UserID) bool
	// Owner is the application service that a user without an account would belong to. May be nil.
	Owner func(matrix.UserID) (id string, ok bool)
	// AskUser asks an application service for a user who has no account, and tells whether it has made one. May be nil.
	AskUser func(ctx context.Context, subject *policy.Party, user matrix.UserID) bool
	// FindBridge returns an application service that may act. May be nil.
	FindBridge func(id string) (*Bridge, bool)
	// IsKeyID tells whether a device ID is the ID of a cross-signing key of the user, which no device may have. May be nil.
	IsKeyID func(ctx context.Context, user matrix.UserID, device matrix.DeviceID) (bool, error)
	// OnDrop is run in the transaction that removes devices, so that their keys and pushers go with them.
	OnDrop []func(tx *storage.Tx, user matrix.UserID, devices []matrix.DeviceID) error
	// OnClose is run in the transaction that closes an account for good; erase says that what the user left is to go as well.
	OnClose []func(tx *storage.Tx, user matrix.UserID, erase bool) error
}

// Service keeps the accounts of all tenants. Its methods may be called from any goroutine.
type Service struct {
	Deps
	log     *logrus.Entry
	hasher  *hasher
	cache   *sessionCache
	parties *partyCache
	limits  *limits
	metrics *metrics
	far     *farProfiles

	mu   sync.Mutex
	seen map[deviceKey]storage.Seen // guarded by mu: last uses that are not written yet
}

// New returns a Service that is ready to use; Run must run while the server lives.
func New(d Deps) (*Service, error) {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Rand == nil {
		d.Rand = rand.Reader
	}
	if d.Log == nil {
		d.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	if d.TokenLife == 0 {
		d.TokenLife = time.Hour
	}
	s := &Service{Deps: d, log: d.Log.WithField("pkg", "account"), cache: newSessionCache(maxSessions), parties: newPartyCache(maxParties),
		seen: map[deviceKey]storage.Seen{}, metrics: newMetrics(d.Registerer), far: newFarProfiles(d.Now)}
	var err error
	if s.hasher, err = newHasher(d.Hash, d.Rand); err != nil {
		return nil, err
	}
	s.limits = newLimits(d.Limits.Enabled, d.Now, s.metrics)
	return s, nil
}

// Run writes down when devices were last used until ctx ends, and what is left of it then.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(seenInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.flush(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second) // the server stops, this is the last chance
			defer cancel()
			s.flush(last)
			return nil
		}
	}
}

func (s *Service) flush(ctx context.Context) {
	if err := s.FlushSeen(ctx); err != nil {
		s.log.WithField("err", err).Warn("the last uses of devices could not be written")
	}
}

// Client is who speaks HTTP to the server.
type Client struct {
	// IP is the address, already freed of proxies that the operator trusts.
	IP        netip.Addr
	UserAgent string
	// Appservice says that it is an application service.
	Appservice bool
}

func (c Client) request(via string) *policy.Request {
	if c.Appservice && via == "client" {
		via = "appservice"
	}
	return &policy.Request{IP: c.ip(), UserAgent: clip(c.UserAgent, 256), Via: via}
}

func (c Client) ip() string {
	if !c.IP.IsValid() {
		return ""
	}
	return c.IP.Unmap().WithZone("").String()
}

func (c Client) network() *policy.Network { return &policy.Network{IP: c.ip()} }

// Caller is the session and the connection that a request came with.
type Caller struct {
	*Session
	Client Client
}

// IsLocal tells whether a server name is a tenant of this deployment.
func (s *Service) IsLocal(name matrix.ServerName) bool {
	_, ok := s.Tenant(name)
	return ok
}

// ask puts a question to the policy; a denial is the error that the client gets.
func (s *Service) ask(ctx context.Context, in *policy.Input) error {
	in.Schema, in.Time = policy.InputSchema, s.Now()
	if e := s.Policy.Decide(ctx, in).Error(); e != nil {
		return e
	}
	return nil
}

// act asks about something that the caller does to their own account.
func (s *Service) act(ctx context.Context, by Caller, p policy.Point, account *policy.Account) error {
	return s.ask(ctx, &policy.Input{Point: p, Tenant: policy.Tenant{Name: string(by.Tenant)}, Subject: by.Party, Account: account,
		Request: by.Client.request("client")})
}

// own refuses what belongs to another user.
func own(by Caller, user matrix.UserID) error {
	if by.Session == nil || user != by.UserID {
		return matrix.Forbidden("This belongs to another user.")
	}
	return nil
}

// find turns storage.ErrNotFound into an answer.
func find(err error, format string, args ...any) error {
	if errors.Is(err, storage.ErrNotFound) {
		return matrix.NotFound(format, args...)
	}
	return err
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}
