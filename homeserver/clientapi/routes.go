package clientapi

import (
	"net/netip"
	"time"

	"github.com/sirupsen/logrus"

	"hansa/homeserver/account"
	"hansa/homeserver/clientsync"
	"hansa/homeserver/directory"
	"hansa/homeserver/e2ee"
	"hansa/homeserver/ephemeral"
	"hansa/homeserver/media"
	"hansa/homeserver/membership"
	"hansa/homeserver/push"
	"hansa/homeserver/room"
	"hansa/homeserver/stream"
	"hansa/policy"
	"hansa/storage"
)

// Deps is what the API needs. Every service has its field; tenants are in the order of the configuration.
type Deps struct {
	DB        *storage.DB
	Stream    *stream.Stream
	Policy    *policy.Engine
	Accounts  *account.Service
	Rooms     *room.Service
	Members   *membership.Service
	Directory *directory.Service
	Sync      *clientsync.Service
	E2EE      *e2ee.Service
	Ephemeral *ephemeral.Service
	Receipts  *ephemeral.Receipts
	PushRules *push.Rules
	Media     *media.Service
	// Bridges are the application services; nil for none.
	Bridges Bridges
	Tenants []Tenant
	// Proxies are the networks of the reverse proxies that tell where requests come from.
	Proxies []netip.Prefix
	Log     *logrus.Entry
	// Version is the version of the software.
	Version string
	// Several tells whether other nodes may write to the database, too; nil means no.
	Several func() bool
	// Limits turns the limits per user on.
	Limits bool
	Now    func() time.Time
}

// API serves the client-server API.
type API struct {
	Deps
	filters filterCache
	limits  *limits // nil where limits are off
}

// New returns an API that is ready to serve.
func New(d Deps) *API {
	if d.Now == nil {
		d.Now = time.Now
	}
	d.Log = d.Log.WithField("pkg", "clientapi")
	a := &API{Deps: d}
	if d.Limits {
		a.limits = newLimits(d.Now)
	}
	return a
}

// routes gathers the tables of all chapters.
func (a *API) routes() []route {
	var all []route
	for _, table := range [][]route{
		a.discoveryRoutes(), a.loginRoutes(), a.ownRoutes(), a.syncRoutes(),
		a.roomRoutes(), a.memberRoutes(), a.stateRoutes(), a.sendRoutes(), a.aliasRoutes(), a.roomListRoutes(), a.spaceRoutes(), a.userDirectoryRoutes(),
		a.typingRoutes(), a.receiptRoutes(), a.presenceRoutes(), a.pushRuleRoutes(), a.tagRoutes(),
		a.keyRoutes(), a.toDeviceRoutes(), a.roomKeyRoutes(), a.mediaRoutes(), a.bridgeRoutes(),
	} {
		all = append(all, table...)
	}
	return all
}
