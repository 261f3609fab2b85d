// Package resolve finds out where a server is: from a server name to the addresses to dial, the name that the certificate must have and
// the Host header, in the order that the specification prescribes, and sends requests there.
//
// The order is: an address that the operator has set; an IP literal; an explicit port; the well-known file of the host, whose answer is
// taken through the same steps; the SRV records _matrix-fed and _matrix; port 8448 of the host. A well-known answer is kept as long as it
// says, between five minutes and 48 hours; where there is none, that is kept for a time that grows with each failure to an hour, and an
// answer that was good before goes on to count in the meantime. SRV records are kept for some minutes. All of it is bounded in memory.
//
// Nobody is asked here whether the server is a partner: callers do that before they come (fedclient, keyring), since looking up a name
// is an effect already. Which addresses may be connected to is decided by outbound for each connection.
//
// spec: server-server-api#resolving-server-names
package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/outbound"
)

// DNS finds SRV records. It is an interface so that tests can answer; net.Resolver is one.
type DNS interface {
	// LookupSRV returns the records of _service._proto.name in the order in which they are to be tried.
	LookupSRV(ctx context.Context, service, proto, name string) (cname string, records []*net.SRV, err error)
}

// Deps is what a Resolver needs.
type Deps struct {
	Out *outbound.Client
	// DNS finds SRV records; nil stands for the resolver of the system.
	DNS DNS
	Log *logrus.Entry
	Now func() time.Time
	// CacheServers is how many servers stay in memory; 0 means 20,000.
	CacheServers int
}

// Target is one place where a server may answer.
type Target struct {
	// Address is host:port to dial.
	Address string
	// Name is what the certificate must be for.
	Name string
	// Host is the Host header.
	Host string
}

// The limits of looking up.
const (
	maxTargets    = 8
	lookupTimeout = 10 * time.Second
	srvAge        = 10 * time.Minute
	srvAgeFailed  = time.Minute
)

// ErrNowhere is wrapped where a server name leads nowhere.
var ErrNowhere = errors.New("resolve: the server name leads nowhere")

// Resolver finds servers. Its methods may be called from any goroutine.
type Resolver struct {
	Deps
	log   *logrus.Entry
	ports ports
	wells *cache[well]
	srvs  *cache[srv]
	// What is asked at the moment.
	wellsAsked stream.Flight[well]
	srvsAsked  stream.Flight[srv]
}

// ports are those of the specification, unless a test has others.
type ports struct{ wellKnown, federation string }

// New returns a Resolver that is ready to use.
func New(d Deps) *Resolver {
	if d.DNS == nil {
		d.DNS = net.DefaultResolver
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Log == nil {
		d.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	if d.CacheServers == 0 {
		d.CacheServers = 20000
	}
	return &Resolver{Deps: d, log: d.Log.WithField("pkg", "resolve"), ports: ports{"443", "8448"}, wells: newCache[well](d.CacheServers), srvs: newCache[srv](d.CacheServers)}
}

// Resolve returns where to reach a server, at least one place.
func (r *Resolver) Resolve(ctx context.Context, server matrix.ServerName) ([]Target, error) {
	if _, err := matrix.ParseServerName(string(server)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNowhere, err)
	}
	if address, ok := r.Out.Address(server); ok {
		return []Target{{Address: address, Name: bare(server.Host()), Host: string(server)}}, nil
	}
	if t, ok := r.direct(string(server)); ok {
		return []Target{t}, nil
	}
	// 3. The well-known file.
	if delegated, ok := r.delegated(ctx, strings.ToLower(string(server))); ok {
		if t, ok := r.direct(delegated); ok {
			return []Target{t}, nil
		}
		return r.records(ctx, delegated)
	}
	return r.records(ctx, string(server))
}

// direct are the steps that need no look-up: IP literals, and names with a port.
func (r *Resolver) direct(server string) (Target, bool) {
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		host, port = bare(server), r.ports.federation
		if _, err := netip.ParseAddr(host); err != nil {
			return Target{}, false
		}
	}
	return Target{Address: net.JoinHostPort(host, port), Name: host, Host: server}, true
}

func bare(host string) string { return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]") }

// srv is what is known of the SRV records of a name.
type srv struct {
	targets []string // host:port, none where there are no records
	nowhere bool     // the records say that there is no such service
	until   time.Time
}

func (r *Resolver) knownSRV(key string) (srv, bool) {
	s, ok := r.srvs.get(key)
	return s, ok && !r.Now().After(s.until)
}

// records looks up the SRV records of a host name, the registered service first, and falls back to port 8448 of the host itself. The
// certificate must in any case be for the host, since DNS may lie.
func (r *Resolver) records(ctx context.Context, host string) ([]Target, error) {
	key := strings.ToLower(host)
	s, ok := r.knownSRV(key)
	if !ok {
		var err error
		s, err = r.srvsAsked.Do(ctx, key, lookupTimeout+wellKnownTimeout, func(ctx context.Context) (srv, error) {
			if s, ok := r.knownSRV(key); ok { // another has looked it up since this one saw that it was not known
				return s, nil
			}
			return r.lookupSRV(ctx, key), nil
		})
		if err != nil {
			return nil, err
		}
	}
	if s.nowhere {
		return nil, fmt.Errorf("%w: %s offers no federation", ErrNowhere, host)
	}
	if len(s.targets) == 0 {
		return []Target{{Address: net.JoinHostPort(host, r.ports.federation), Name: host, Host: host}}, nil
	}
	out := make([]Target, len(s.targets))
	for i, address := range s.targets {
		out[i] = Target{Address: address, Name: host, Host: host}
	}
	return out, nil
}

func (r *Resolver) lookupSRV(ctx context.Context, host string) srv {
	s := srv{until: r.Now().Add(srvAge)}
	for _, service := range []string{"matrix-fed", "matrix"} {
		_, records, err := r.DNS.LookupSRV(ctx, service, "tcp", host)
		if err != nil && !isAbsent(err) {
			// Whoever can make DNS fail gains nothing by it: the certificate decides.
			s.until = r.Now().Add(srvAgeFailed)
		}
		for _, rec := range records {
			target := strings.TrimSuffix(rec.Target, ".")
			if target == "" && len(records) == 1 {
				s.nowhere = true
			}
			if target == "" || rec.Port == 0 || len(s.targets) == maxTargets {
				continue
			}
			s.targets = append(s.targets, net.JoinHostPort(target, strconv.Itoa(int(rec.Port))))
		}
		if s.nowhere || len(s.targets) > 0 {
			break
		}
	}
	r.srvs.put(host, s)
	return s
}

func isAbsent(err error) bool {
	var d *net.DNSError
	return errors.As(err, &d) && d.IsNotFound
}

// Do sends a request to a server: to the places where it may be, one after the other, until one answers. Address, ServerName, Host and
// Peer of the request are filled in. It may be sent again only where no connection came about, or where the request says so.
func (r *Resolver) Do(ctx context.Context, server matrix.ServerName, req outbound.Request) (*outbound.Response, error) {
	return attempt(ctx, r, server, req, r.Out.Do)
}

// Stream is Do for an answer that is read piece by piece.
func (r *Resolver) Stream(ctx context.Context, server matrix.ServerName, req outbound.Request) (*outbound.Streamed, error) {
	return attempt(ctx, r, server, req, r.Out.Stream)
}

func attempt[T any](ctx context.Context, r *Resolver, server matrix.ServerName, req outbound.Request, send func(context.Context, outbound.Request) (*T, error)) (*T, error) {
	targets, err := r.Resolve(ctx, server)
	if err != nil {
		return nil, err
	}
	var last error
	for _, t := range targets {
		req.Address, req.ServerName, req.Host, req.Peer = t.Address, t.Name, t.Host, server
		resp, err := send(ctx, req)
		if err == nil || ctx.Err() != nil || !errors.Is(err, outbound.ErrNotConnected) {
			return resp, err
		}
		last = err
	}
	r.forget(server)
	return nil, last
}

// forget lets go of what may have led to the wrong place, so that a server that has moved is found again soon.
func (r *Resolver) forget(server matrix.ServerName) {
	key := strings.ToLower(string(server))
	if w, ok := r.wells.get(key); ok {
		if w.server != "" {
			r.srvs.drop(strings.ToLower(w.server))
		}
		if soon := r.Now().Add(minAge); w.server != "" && w.next.After(soon) {
			w.next = soon
			r.wells.put(key, w)
		}
	}
	r.srvs.drop(key)
}
