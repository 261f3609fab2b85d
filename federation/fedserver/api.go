package fedserver

import (
	"context"
	"net/http"
	"net/netip"
	"runtime"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"hansa/federation"
	"hansa/homeserver/ratelimit"
	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/signing"
)

// Door decides whether a server may make requests of a tenant at all. It is declared here so that tests can stand in for policy.
type Door interface {
	// Inbound is nil where the server may, else a *matrix.Error.
	Inbound(ctx context.Context, as, origin matrix.ServerName) error
	// InboundLeave is Inbound for requests that only take people of the server out of rooms.
	InboundLeave(ctx context.Context, as, origin matrix.ServerName) error
}

// Keys finds the keys that requests are signed with, and publishes our own. It is declared here so that tests need no keyring.
type Keys interface {
	// RequestKey returns a key of a server that is valid now; old keys are only for events.
	RequestKey(ctx context.Context, server matrix.ServerName, id signing.KeyID) (signing.PublicKey, error)
	// OwnKeys returns the signed answer about the keys of a tenant.
	OwnKeys(tenant matrix.ServerName) ([]byte, error)
	// Query answers as a notary, in the name of a tenant.
	Query(ctx context.Context, as matrix.ServerName, want map[matrix.ServerName]map[string]federation.KeyCriteria) ([]jsontext.Value, error)
}

// EDUHandler takes in one EDU of a server. An error means that the server has to send it again; what cannot be used is dropped without one.
type EDUHandler func(ctx context.Context, as, origin matrix.ServerName, content jsontext.Value) error

// Deps is what the API needs.
type Deps struct {
	Rooms *room.Service
	Door  Door
	Keys  Keys
	// Ingest takes in events of one room and says of each what became of it.
	Ingest func(ctx context.Context, as, origin matrix.ServerName, id matrix.RoomID, pdus [][]byte) []room.Admitted
	// Outside takes in an event of a room that this deployment is not in: that an invitation is over.
	Outside func(ctx context.Context, as, origin matrix.ServerName, id matrix.RoomID, pdu []byte) error
	// Members lets people in and out.
	Members   Members
	Devices   Devices
	Directory Directory
	Profiles  Profiles
	Media     Media
	// EDUs are the receivers of EDUs by type.
	EDUs map[string]EDUHandler
	// Heard is told of each server that has made a request; may be nil.
	Heard func(origin matrix.ServerName)
	// Tenants are the hosted domains in the order of the configuration.
	Tenants []Tenant
	// Limits turns the limits on how much one server may ask on.
	Limits bool
	// Address finds out where a request comes from; nil: from the other end of its connection.
	Address func(*http.Request) netip.Addr
	// Version is the version of the software.
	Version    string
	Log        *logrus.Entry
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Tenant is what this API must know of a tenant.
type Tenant struct {
	Name matrix.ServerName
	// Host is the host of its public address, with its port if it has one.
	Host string
	// Delegate is the host and port that .well-known names for federation; empty: it names none.
	Delegate string
}

// The limits on what one server may ask.
const (
	originBurst = 500
	originEvery = 10 * time.Millisecond
	// Joins of one room.
	joinBurst = 100
	joinEvery = 200 * time.Millisecond
	// Requests from one address whose signature was wrong.
	wrongBurst = 50
	wrongEvery = time.Second
	// Requests that are under way, of all and of one server, and those of one server that wait. Many may wait for servers that are slow to
	// answer what we ask them in between.
	totalActive  = 128
	originActive = 8
	originQueue  = 100
	// Bodies in memory, of one address and of all.
	bodiesPerAddress = 64 << 20
	bodiesTotal      = 256 << 20
)

// API serves the server-server API.
type API struct {
	Deps
	txns    *transactions
	gate    *gate
	bodies  *budget
	origins *ratelimit.Buckets
	joins   *ratelimit.Buckets
	wrong   *ratelimit.Buckets
	metrics *metrics
	// working holds a place for each request whose signature is being worked out.
	working chan struct{}
}

// New returns an API that is ready to serve.
func New(d Deps) *API {
	if d.Now == nil {
		d.Now = time.Now
	}
	d.Log = d.Log.WithField("pkg", "fedserver")
	return &API{Deps: d, txns: newTransactions(maxTransactions), gate: newGate(totalActive, originActive, originQueue),
		bodies: newBudget(bodiesTotal, bodiesPerAddress), origins: ratelimit.New(originBurst, originEvery, d.Now), joins: ratelimit.New(joinBurst, joinEvery, d.Now),
		wrong: ratelimit.New(wrongBurst, wrongEvery, d.Now), metrics: newMetrics(d.Registerer), working: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1))}
}

// tenantOfHost is the tenant that a request without a signature is for: that of the Host header, else the first one.
func (a *API) tenantOfHost(host string) Tenant {
	name, err := matrix.ParseServerName(host)
	if err == nil {
		for _, t := range a.Tenants {
			if t.Name == name || string(t.Name) == name.Host() || t.Host != "" && (t.Host == string(name) || t.Host == name.Host()) {
				return t
			}
		}
	}
	return a.Tenants[0]
}

// isTenant tells whether a server name is hosted here.
func (a *API) isTenant(name matrix.ServerName) bool {
	for _, t := range a.Tenants {
		if t.Name == name {
			return true
		}
	}
	return false
}
