package homeserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"hansa/appservices"
	"hansa/config"
	"hansa/federation/agreement"
	"hansa/homeserver/account"
	"hansa/homeserver/adminapi"
	"hansa/homeserver/clientapi"
	"hansa/homeserver/clientsync"
	"hansa/homeserver/directory"
	"hansa/homeserver/e2ee"
	"hansa/homeserver/ephemeral"
	"hansa/homeserver/media"
	"hansa/homeserver/membership"
	"hansa/homeserver/push"
	"hansa/homeserver/room"
	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/matrix/signing"
	"hansa/policy"
	"hansa/storage"
)

// Deps is what a server needs besides its configuration. Zero values stand for the system's own.
type Deps struct {
	Log *logrus.Entry
	Now func() time.Time
	// Version is the version of the software.
	Version string
	// Hashing is the cost of passwords; the zero value is account.DefaultHashing.
	Hashing account.Hashing
	// PolicyDeadline bounds one evaluation of policy; 0 means the engine's default.
	PolicyDeadline time.Duration
}

// Server is one node.
type Server struct {
	Config    *config.Config
	DB        *storage.DB
	Stream    *stream.Stream
	Policy    *policy.Engine
	Accounts  *account.Service
	Rooms     *room.Service
	Members   *membership.Service
	Directory *directory.Service
	Sync      *clientsync.Service
	Keys      *e2ee.Service
	Presence  *ephemeral.Service
	Push      *push.Rules
	Media     *media.Service
	Bridges   *appservices.Service
	API       *clientapi.API
	Admin     *adminapi.API
	federationParts
	// Agreements are those of the tenants with their partners.
	Agreements *agreement.Service
	Metrics    *prometheus.Registry
	Version    string

	health *health
	nodes  *nodes

	agreements sync.Mutex // held while those of the database are handed to the policy
	// followed is how far followCaches has read the log. It begins before anything is read that it keeps up to date.
	followed int64

	log     *logrus.Entry
	now     func() time.Time
	signing map[matrix.ServerName]signing.Key
	former  map[matrix.ServerName][]signing.Key // further keys of the key files
	ready   chan struct{}
	// addresses of the listeners once they listen
	client, federation, admin string
}

// New opens the database and builds a server. Close or Run must follow.
func New(ctx context.Context, cfg *config.Config, d Deps) (s *Server, err error) {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Log == nil {
		l := logrus.New()
		l.SetOutput(io.Discard)
		d.Log = logrus.NewEntry(l)
	}
	s = &Server{Config: cfg, Metrics: prometheus.NewRegistry(), Version: d.Version, log: d.Log.WithField("pkg", "homeserver"), now: d.Now, ready: make(chan struct{})}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, err
	}
	if s.signing, s.former, err = loadKeys(cfg.Tenants); err != nil {
		return nil, err
	}
	database, err := cfg.ReadDatabase()
	if err != nil {
		return nil, err
	}
	nats, err := cfg.ReadNATS()
	if err != nil {
		return nil, err
	}
	seen, err := s.remembered()
	if err != nil {
		return nil, err
	}
	if s.Stream, s.DB, err = stream.Open(ctx, stream.Options{Storage: storage.Options{URL: database, Log: d.Log, Now: d.Now, Seen: seen}, NATS: nats, Log: d.Log,
		Registerer: s.Metrics}); err != nil {
		return nil, err
	}
	s.followed = s.Stream.Position()
	if err := s.build(ctx, d); err != nil {
		return nil, errors.Join(err, s.DB.Close())
	}
	return s, nil
}

// build makes the services, the lower ones first.
func (s *Server) build(ctx context.Context, d Deps) (err error) {
	var names []matrix.ServerName
	for _, t := range s.Config.Tenants {
		names = append(names, t.Name)
	}
	if err := s.departures(ctx, names); err != nil {
		return fmt.Errorf("domains that are not hosted any more: %w", err)
	}
	agreements, err := s.readAgreements(ctx)
	if err != nil {
		return fmt.Errorf("agreements: %w", err)
	}
	s.Policy, err = policy.New(policy.Options{Bundles: s.Config.Policy.Bundles, Tenants: s.tenantNames(), Agreements: agreements,
		Recorder: &recorder{s.DB}, Log: d.Log, Registerer: s.Metrics, Now: d.Now, Deadline: d.PolicyDeadline})
	if err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	if err := s.registerMetrics(); err != nil {
		return err
	}
	s.health = newHealth(d.Now)
	if s.nodes, err = newNodes(s); err != nil {
		return err
	}
	if err := s.buildOutbound(ctx, d); err != nil {
		return err
	}
	if err := s.buildAccounts(d); err != nil {
		return err
	}
	s.Rooms = room.New(room.Deps{DB: s.DB, Stream: s.Stream, Policy: s.Policy, Parties: s.Accounts, Keys: s.signing, Keyring: s.Ring, Remote: s.Client,
		Log: d.Log, Now: d.Now})
	s.Keys = e2ee.New(e2ee.Deps{DB: s.DB, Policy: s.Policy, Parties: s.Accounts, Stream: s.Stream, Remote: s.Client,
		Queue: queueEDU, Log: d.Log, Now: d.Now})
	s.Presence = ephemeral.New(ephemeral.Deps{Policy: s.Policy, Rooms: s.Rooms, Parties: s.Accounts, Relay: s.Stream, Node: s.Stream.Node(),
		Send: s.sendEphemeral, Now: d.Now})
	s.Push = push.New(s.DB)
	s.Members = membership.New(membership.Deps{DB: s.DB, Policy: s.Policy, Rooms: s.Rooms, Parties: s.Accounts, Log: d.Log, Now: d.Now,
		Remote: s.Client, Gate: s.Door, PeerError: peerError, Limits: s.Config.Limits.Enabled})
	s.Sync = clientsync.New(clientsync.Deps{DB: s.DB, Stream: s.Stream, Policy: s.Policy, Rooms: s.Rooms, Parties: s.Accounts, Keys: s.Keys,
		Ephemeral: s.Presence, Push: s.Push, Forget: s.Accounts.Invalidate, Log: d.Log, Now: d.Now})
	s.Directory = directory.New(directory.Deps{DB: s.DB, Stream: s.Stream, Policy: s.Policy, Rooms: s.Rooms, Parties: s.Accounts, PartyOf: s.Accounts.PartyOf,
		Remote: s.Client, Reach: s.Door.Outbound, Open: s.Sync.RoomOpen, Ask: s.askAlias, Tenants: names, Log: d.Log, Now: d.Now})
	receipts := ephemeral.NewReceipts(ephemeral.ReceiptDeps{DB: s.DB, Policy: s.Policy, Rooms: s.Rooms, Parties: s.Accounts, Presence: s.Presence,
		Visible: s.Sync.Visible, Now: d.Now})
	s.Media, err = media.New(media.Deps{DB: s.DB, Policy: s.Policy, Parties: s.Accounts, Tenants: names, Path: s.Config.Media.Path,
		MaxUpload: int64(s.Config.Media.MaxUpload), Fetch: s.fetchMedia, Log: d.Log, Now: d.Now, Registerer: s.Metrics})
	if err != nil {
		return err
	}
	proxies, err := s.Config.Listen.ReadProxies()
	if err != nil {
		return fmt.Errorf("listen.trusted_proxies: %w", err)
	}
	if err := s.buildBridges(ctx, d, names); err != nil {
		return err
	}
	s.API = clientapi.New(clientapi.Deps{Proxies: proxies, DB: s.DB, Stream: s.Stream, Policy: s.Policy, Accounts: s.Accounts, Rooms: s.Rooms, Sync: s.Sync,
		Members: s.Members, Directory: s.Directory, E2EE: s.Keys, Ephemeral: s.Presence, Receipts: receipts, PushRules: s.Push, Media: s.Media, Bridges: s.Bridges, Tenants: s.apiTenants(), Several: s.nodes.several, Log: d.Log, Version: d.Version, Limits: s.Config.Limits.Enabled, Now: d.Now})
	s.buildFederation(d, receipts, proxies)
	s.buildAdmin(d)
	return nil
}

func (s *Server) tenantNames() []string {
	var out []string
	for _, t := range s.Config.Tenants {
		out = append(out, string(t.Name))
	}
	return out
}

func (s *Server) apiTenants() []clientapi.Tenant {
	var out []clientapi.Tenant
	for _, t := range s.Config.Tenants {
		c := clientapi.Tenant{Name: t.Name, PublicURL: t.PublicURL}
		if u, err := url.Parse(t.PublicURL); err == nil {
			c.Host = u.Host
		}
		out = append(out, c)
	}
	return out
}

// buildAccounts makes the account service. What goes with a device or an account is told to services that are made later.
func (s *Server) buildAccounts(d Deps) (err error) {
	tenants := map[matrix.ServerName]account.Tenant{}
	for _, t := range s.Config.Tenants {
		at := account.Tenant{Name: t.Name, Registration: string(t.Registration)}
		secret, err := t.ReadSharedSecret()
		if err != nil {
			return err
		}
		at.SharedSecret = []byte(secret)
		if at.RegistrationTokens, err = t.ReadTokens(); err != nil {
			return err
		}
		tenants[t.Name] = at
	}
	s.Accounts, err = account.New(account.Deps{DB: s.DB, Policy: s.Policy, Remote: s.Client, Log: d.Log, Now: d.Now, Rand: rand.Reader, Hash: d.Hashing, Registerer: s.Metrics,
		Limits:    account.Limits{Enabled: s.Config.Limits.Enabled},
		Tenant:    func(name matrix.ServerName) (account.Tenant, bool) { t, ok := tenants[name]; return t, ok },
		Exclusive: s.isReserved, Owner: s.bridgeOf, FindBridge: s.findBridge, AskUser: s.askUser,
		IsKeyID: func(ctx context.Context, user matrix.UserID, device matrix.DeviceID) (bool, error) {
			return s.Keys.IsKeyID(ctx, user, device)
		},
		OnDrop: []func(*storage.Tx, matrix.UserID, []matrix.DeviceID) error{
			func(tx *storage.Tx, user matrix.UserID, devices []matrix.DeviceID) error {
				return s.Keys.DropDevices(tx, user, devices)
			},
		},
		OnClose: []func(*storage.Tx, matrix.UserID, bool) error{s.closeAccount},
	})
	return err
}

// closeAccount takes away what an account leaves in other services; media only where the user wants it erased.
func (s *Server) closeAccount(tx *storage.Tx, user matrix.UserID, erase bool) error {
	if err := s.Keys.DropUser(tx, user); err != nil {
		return err
	}
	if err := s.Push.Erase(tx, user); err != nil {
		return err
	}
	if !erase {
		return nil
	}
	return s.Media.DeleteUserMedia(tx, user)
}
