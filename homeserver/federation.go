package homeserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"hansa/federation"
	"hansa/federation/door"
	"hansa/federation/fedclient"
	"hansa/federation/fedserver"
	"hansa/federation/keyring"
	"hansa/federation/outbox"
	"hansa/federation/resolve"
	"hansa/homeserver/clientapi"
	"hansa/homeserver/ephemeral"
	"hansa/homeserver/media"
	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/outbound"
	"hansa/policy"
	"hansa/storage"
)

var (
	_ room.Keyring   = (*keyring.Ring)(nil)
	_ fedserver.Keys = (*keyring.Ring)(nil)
	_ fedserver.Door = (*door.Door)(nil)
)

// federationParts are those that reach other servers, and are reached by them.
type federationParts struct {
	Door *door.Door
	Out  *outbound.Client
	Ring *keyring.Ring
	// Client asks other servers.
	Client *fedclient.Client
	// Outbox sends other servers what concerns them.
	Outbox *outbox.Outbox
	// Federation is the server-server API.
	Federation *fedserver.API
}

// buildOutbound makes what reaches other servers; policy stands already, rooms do not.
func (s *Server) buildOutbound(ctx context.Context, d Deps) (err error) {
	s.Door = door.New(door.Deps{Policy: s.Policy, IsLocal: s.isLocal, Now: d.Now})
	o := outbound.Options{AllowPrivate: s.Config.Federation.AllowPrivateAddresses, CAFile: s.Config.Federation.TrustedCAFile,
		Addresses: map[string]string{}, Pins: map[string][]string{}, Log: d.Log, Registerer: s.Metrics, Now: d.Now}
	for _, r := range s.Config.Federation.Servers {
		if r.Address != "" {
			o.Addresses[string(r.Name)] = r.Address
		}
		if len(r.Pins) > 0 {
			o.Pins[string(r.Name)] = r.Pins
		}
	}
	if s.Out, err = outbound.New(o); err != nil {
		return fmt.Errorf("federation: %w", err)
	}
	resolver := resolve.New(resolve.Deps{Out: s.Out, Log: d.Log, Now: d.Now})
	var tenants []matrix.ServerName
	for _, t := range s.Config.Tenants {
		tenants = append(tenants, t.Name)
	}
	s.Ring, err = keyring.New(keyring.Deps{DB: s.DB, Keys: s.signing, Others: s.former, Servers: resolver,
		Allowed: keyring.AnyTenant(tenants, s.Door.Outbound, s.Door.Inbound), Log: d.Log, Registerer: s.Metrics, Now: d.Now})
	if err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	s.Client, err = fedclient.New(fedclient.Deps{Keys: s.signing, Out: s.Out, Servers: resolver, Gate: s.Door, Log: d.Log, Registerer: s.Metrics, Now: d.Now})
	if err != nil {
		return fmt.Errorf("federation client: %w", err)
	}
	return s.Ring.Register(ctx)
}

// buildFederation makes the server-server API; all services stand.
func (s *Server) buildFederation(d Deps, receipts *ephemeral.Receipts, proxies []netip.Prefix) {
	s.Outbox = outbox.New(outbox.Deps{DB: s.DB, Stream: s.Stream, Rooms: s.Rooms, Client: s.Client, Door: s.Door, May: s.Presence.MayServer,
		Log: d.Log, Now: d.Now, Registerer: s.Metrics})
	edus := map[string]fedserver.EDUHandler{
		federation.EDUToDevice:   s.Keys.ReceiveToDevice,
		federation.EDUDeviceList: s.Keys.ReceiveDeviceList,
		federation.EDUSigningKey: s.Keys.ReceiveSigningKey,
		federation.EDUTyping:     s.Presence.ReceiveTyping,
		federation.EDUPresence:   s.Presence.ReceivePresence,
		federation.EDUReceipt:    receipts.Receive,
	}
	s.Federation = fedserver.New(fedserver.Deps{Rooms: s.Rooms, Door: s.Door, Keys: s.Ring, Ingest: s.Rooms.Admit, Outside: s.Members.ReceiveOutside, EDUs: edus, Members: s.Members,
		Devices: s.Keys, Directory: s.Directory, Profiles: s.Accounts, Media: s.Media, Heard: func(origin matrix.ServerName) { s.Client.Hear(origin); s.Outbox.Hear(origin) },
		Address: func(r *http.Request) netip.Addr { return clientapi.AddressOf(r, proxies) },
		Tenants: s.fedTenants(), Limits: s.Config.Limits.Enabled, Version: d.Version, Log: d.Log, Registerer: s.Metrics, Now: d.Now})
}

// sendEphemeral tells other servers of typing and presence.
func (s *Server) sendEphemeral(as matrix.ServerName, id matrix.RoomID, user matrix.UserID, edu federation.EDU) {
	s.Outbox.Ephemeral(as, outbox.About{Room: id, User: user}, edu)
}

// federationServices are what runs beside the requests.
func (s *Server) federationServices() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"outbox":                s.Outbox.Run,
		"device lists":          s.Keys.Run,
		"device list announcer": s.follower(s.Keys.Announcer()),
	}
}

// peerError takes apart what another server has answered; ok is false where it has not answered.
func peerError(err error) (status int, code, message string, ok bool) {
	var e *fedclient.Error
	if !errors.As(err, &e) {
		return 0, "", "", false
	}
	return e.Status, e.Code, e.Message, true
}

// fetchMedia downloads media of another server.
func (s *Server) fetchMedia(ctx context.Context, as, to matrix.ServerName, id string, maxBytes int64) (*media.RemoteFile, error) {
	f, err := s.Client.Media(ctx, as, to, id, maxBytes)
	if err != nil {
		return nil, err
	}
	return &media.RemoteFile{Type: f.ContentType, Disposition: f.Disposition, Body: f.Body}, nil
}

// queueEDU hands an EDU to the outbox.
func queueEDU(tx *storage.Tx, as, to matrix.ServerName, typ, key string, content []byte) error {
	return tx.QueueEDU(as, to, typ, key, content)
}

func (s *Server) isLocal(name matrix.ServerName) bool { _, ok := s.signing[name]; return ok }

// fedTenants tells the server-server API where each tenant is reached: at the host of its public address, on the port of the
// federation listener, or on that of the public address where there is none.
func (s *Server) fedTenants() []fedserver.Tenant {
	var out []fedserver.Tenant
	for _, t := range s.Config.Tenants {
		f := fedserver.Tenant{Name: t.Name}
		if u, err := url.Parse(t.PublicURL); err == nil && u.Host != "" {
			f.Host = u.Host
			port := u.Port()
			if port == "" {
				port = "443"
			}
			if _, p, err := net.SplitHostPort(s.Config.Listen.Federation); err == nil && p != "0" {
				port = p
			}
			f.Delegate = net.JoinHostPort(u.Hostname(), port)
		}
		out = append(out, f)
	}
	return out
}

// readAgreements returns the agreements of the database, and for each tenant one with each default partner that it has none with.
func (s *Server) readAgreements(ctx context.Context) ([]policy.Agreement, error) {
	list, err := loadAgreements(ctx, s.DB)
	if err != nil {
		return nil, err
	}
	have := map[[2]string]bool{}
	for _, a := range list {
		have[[2]string{a.Owner, a.Partner}] = true
	}
	for _, t := range s.Config.Tenants {
		for _, partner := range s.Config.Federation.DefaultPartners {
			if partner == string(t.Name) || have[[2]string{string(t.Name), partner}] {
				continue
			}
			list = append(list, policy.Agreement{State: "active", Owner: string(t.Name), Partner: partner,
				Scope: &policy.Scope{Direction: "both", Pools: policy.AllPools(), Features: policy.AllFeatures()}})
		}
	}
	return list, nil
}

// clientHandler is what the client listener serves: the client-server API, what tells others where federation is, and federation
// itself where it has no listener of its own.
func (s *Server) clientHandler() http.Handler {
	client, servers := s.API.Handler(), s.current(s.Federation.Handler())
	own := s.Config.Listen.Federation != ""
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fedserver.Serves(r.URL.Path) && (!own || strings.HasPrefix(r.URL.Path, "/.well-known/")) {
			servers.ServeHTTP(w, r)
			return
		}
		client.ServeHTTP(w, r)
	})
}

// listenFederation opens the federation listener; nil where there is none.
func (s *Server) listenFederation() (*listener, error) {
	if s.Config.Listen.Federation == "" {
		return nil, nil
	}
	c := &certificates{cert: s.Config.TLS.Certificate, key: s.Config.TLS.Key, now: s.now, log: s.log}
	if _, err := c.load(); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	l, err := net.Listen("tcp", s.Config.Listen.Federation)
	if err != nil {
		return nil, err
	}
	s.federation = l.Addr().String()
	h := s.http(s.current(s.Federation.Handler()))
	h.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: c.get}
	return &listener{tls.NewListener(l, h.TLSConfig), h}, nil
}

// FederationAddr is the address of the federation listener once the server is ready, empty when there is none.
func (s *Server) FederationAddr() string { return s.federation }

// certificateAge is how long a certificate is used before its file is looked at again.
const certificateAge = time.Minute

// certificates is the certificate of a listener. A renewed file is taken as soon as it and its key fit; until then the old one stays.
type certificates struct {
	cert, key string
	now       func() time.Time
	log       *logrus.Entry

	mu      sync.Mutex // guards what follows
	loaded  *tls.Certificate
	stamp   time.Time // of the file that was loaded
	checked time.Time
}

func (c *certificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.load() }

func (c *certificates) load() (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if c.loaded != nil && now.Sub(c.checked) < certificateAge && !now.Before(c.checked) {
		return c.loaded, nil
	}
	c.checked = now
	info, err := os.Stat(c.cert)
	if err == nil && c.loaded != nil && info.ModTime().Equal(c.stamp) {
		return c.loaded, nil
	}
	var pair tls.Certificate
	if err == nil {
		pair, err = tls.LoadX509KeyPair(c.cert, c.key)
	}
	if err != nil {
		if c.loaded != nil {
			c.log.WithError(err).Error("the renewed certificate cannot be used; the old one stays")
			return c.loaded, nil
		}
		return nil, err
	}
	c.loaded, c.stamp = &pair, info.ModTime()
	return c.loaded, nil
}
