// Package outbound is the one way out: every connection that the server opens to another machine on somebody's behalf is opened here.
//
// A Client dials (by address, with the name that the certificate must have and the Host header apart, as federation needs it), checks each
// address that it is about to connect to against an explicit list of refused ranges, whatever names, records or redirects led there, and
// bounds everything: the time of each phase and of the whole, the rate below which a body counts as stuck, the size after decompression,
// the size of headers, the number of redirects, of connections to one peer and of idle ones. It knows no proxy of the environment, no
// cookies and no plaintext fallback. Connections are reused per peer, over HTTP/2 where the peer speaks it.
//
// Do reads a whole answer, Stream hands the body on, HTTP gives a standard client for gateways and the like, FromURL makes a Request
// of a URL. Addresses and certificates that the operator pinned belong to a Request by its Peer.
//
// Errors say one and the same sentence for a refused address, a closed port, a bad certificate and a name that does not exist (Error), so
// that nobody learns about inside networks by asking for them; the cause is in the log, for Debug.
package outbound

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"hansa/matrix"
)

// Options say how to reach others.
type Options struct {
	// AllowPrivate opens loopback and private ranges, for tests and closed networks.
	AllowPrivate bool
	// CAFile holds certificates of authorities that count beside those of the system.
	CAFile string
	// Addresses are host:port by server name, dialled instead of what DNS says. They may be private ones.
	Addresses map[string]string
	// Pins are base64 SHA-256 hashes of public keys (SPKI), by server name: one of the certificates in the chain must have one of them.
	Pins map[string][]string
	// DNS finds addresses; nil stands for the resolver of the system.
	DNS        DNS
	Log        *logrus.Entry
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// The limits of a Client. All can be met by an honest peer on a slow line.
const (
	dialTimeout    = 10 * time.Second // of one connect, names included
	tlsTimeout     = 10 * time.Second
	headerTimeout  = 45 * time.Second // from the request to the end of the answer's header
	defaultTimeout = 60 * time.Second
	idleTimeout    = 90 * time.Second
	maxIdle        = 512
	maxIdlePeer    = 2
	maxPeerConns   = 32
	maxHeader      = 64 << 10
	maxAddresses   = 8
	maxRedirects   = 3
	defaultMaxBody = 1 << 20
)

// Client opens connections. Its methods may be called from any goroutine.
type Client struct {
	log       *logrus.Entry
	now       func() time.Time
	guard     *guard
	dns       DNS
	roots     *x509.CertPool
	addresses map[string]string
	pins      map[string][][sha256.Size]byte
	transport *http.Transport
	metrics   *metrics
	grace     time.Duration // bodyGrace, unless a test is in a hurry
}

// New returns a Client. An unreadable CA file or pin is an error.
func New(o Options) (*Client, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.DNS == nil {
		o.DNS = net.DefaultResolver
	}
	if o.Log == nil {
		o.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	roots, err := loadRoots(o.CAFile)
	if err != nil {
		return nil, err
	}
	pins, err := parsePins(o.Pins)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	c := &Client{log: o.Log.WithField("pkg", "outbound"), now: o.Now, dns: o.DNS, roots: roots, addresses: o.Addresses, pins: pins, metrics: m, grace: bodyGrace,
		guard: &guard{ranges: refusedRanges(), allowPrivate: o.AllowPrivate, own: ownAddresses(o.Now)}}
	c.transport = &http.Transport{
		DialContext:            c.dialPlain,
		DialTLSContext:         c.dialTLS,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdlePeer,
		MaxConnsPerHost:        maxPeerConns,
		IdleConnTimeout:        idleTimeout,
		ResponseHeaderTimeout:  headerTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxHeader,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second, WriteByteTimeout: 20 * time.Second},
	}
	return c, nil
}

// loadRoots returns the authorities of the system and those of a file; nil stands for the system's alone.
func loadRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the trusted authorities: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a system without authorities
	}
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", file)
	}
	return pool, nil
}

func parsePins(in map[string][]string) (map[string][][sha256.Size]byte, error) {
	out := map[string][][sha256.Size]byte{}
	for peer, list := range in {
		for _, s := range list {
			b, err := base64.StdEncoding.DecodeString(s)
			if err != nil || len(b) != sha256.Size {
				return nil, fmt.Errorf("pin %q of %s is not the base64 of a SHA-256 hash", s, peer)
			}
			out[peer] = append(out[peer], [sha256.Size]byte(b))
		}
	}
	return out, nil
}

// Address returns the address that the operator has set for a server.
func (c *Client) Address(peer matrix.ServerName) (address string, ok bool) {
	address, ok = c.addresses[string(peer)]
	return address, ok
}

// Close closes idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// tlsConfig is how the certificate of one peer is judged.
func (c *Client) tlsConfig(t target) *tls.Config {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.roots, ServerName: t.name, NextProtos: []string{"h2", "http/1.1"}, Time: c.now}
	if pins := c.pins[t.peer]; len(pins) > 0 {
		cfg.VerifyConnection = func(s tls.ConnectionState) error { return checkPins(s, pins) }
	}
	return cfg
}

// checkPins demands a pinned key in the chain that was verified.
func checkPins(s tls.ConnectionState, pins [][sha256.Size]byte) error {
	for _, chain := range s.VerifiedChains {
		for _, cert := range chain {
			if slices.Contains(pins, sha256.Sum256(cert.RawSubjectPublicKeyInfo)) {
				return nil
			}
		}
	}
	return errPin
}

var (
	errRefused = errors.New("outbound: refused address")
	errPin     = errors.New("outbound: none of the certificates is pinned")
	errNoTLS   = errors.New("outbound: connections without TLS are refused")
)

// ErrUnreachable is wrapped by every error for want of an answer.
var ErrUnreachable = errors.New("outbound: the server cannot be reached")

// ErrNotConnected is wrapped besides where not even a connection came about, so that nothing was sent.
var ErrNotConnected = errors.New("outbound: no connection")

// ErrTooLarge is wrapped by the error about an answer that is larger than the caller allows.
var ErrTooLarge = errors.New("outbound: the answer is too large")

// Error is a request without an answer. What it says is the same whatever the cause, which Unwrap gives.
type Error struct {
	// Host is what was asked for.
	Host  string
	cause error
}

// Error is the uniform sentence.
func (e *Error) Error() string { return "no answer from " + e.Host }

// Unwrap is ErrUnreachable and the cause: never show the cause to strangers.
func (e *Error) Unwrap() []error { return []error{ErrUnreachable, e.cause} }

// target is one peer to the pool of connections.
type target struct {
	address string // host:port to dial
	name    string // in the certificate
	peer    string // whose pins count
	trusted bool   // the operator set the address
}

// key is a host name for URLs that stands for the target, so that the pool of net/http keeps apart what differs in any part.
func (t target) key() string {
	trusted := "0"
	if t.trusted {
		trusted = "1"
	}
	return hexName(strings.Join([]string{t.address, t.name, t.peer, trusted}, "\x00"))
}

// isIP tells whether a host is an address, in brackets or not.
func isIP(host string) bool {
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil
}
