// Package outboundtest gives tests an authority of their own and TLS servers on loopback whose certificates it has signed, so that what
// goes over outbound can be tested against real connections.
//
// New makes an Authority; its File is what outbound.Options.CAFile takes. Authority.Start starts a server for some names and returns its
// address; what dials it is told by outbound.Options.Addresses or by a DNS of the test (Hosts).
package outboundtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Authority signs certificates.
type Authority struct {
	// File holds the authority's certificate in PEM form.
	File string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// New makes an authority.
func New(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{File: filepath.Join(t.TempDir(), "ca.pem"), key: newKey(t)}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.File, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Issue makes a certificate for names and addresses, valid until the given time.
func (a *Authority) Issue(t testing.TB, until time.Time, names ...string) tls.Certificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: names[0]}, NotBefore: time.Now().Add(-48 * time.Hour),
		NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// Pin is the pin of a certificate.
func Pin(c tls.Certificate) string {
	sum := sha256.Sum256(c.Leaf.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Start starts a server with a certificate for the names, on loopback, until the test ends.
func (a *Authority) Start(t testing.TB, h http.Handler, names ...string) *httptest.Server {
	t.Helper()
	return StartWith(t, a.Issue(t, time.Now().Add(time.Hour), names...), h)
}

// StartWith is Start with a certificate that is there already.
func StartWith(t testing.TB, c tls.Certificate, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{c}}
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// Hosts is a DNS that knows what the test says. It counts what it is asked.
type Hosts struct {
	mu sync.Mutex // guards what follows
	// Addresses are those of a name; with several lists each look-up gets the next, and the last one from then on.
	addresses map[string][][]netip.Addr
	records   map[string][]*net.SRV
	asked     []string
}

// NewHosts returns a DNS that knows nothing.
func NewHosts() *Hosts {
	return &Hosts{addresses: map[string][][]netip.Addr{}, records: map[string][]*net.SRV{}}
}

// Add makes a name resolve to addresses. Further calls for the same name are for the look-ups after the first.
func (h *Hosts) Add(name string, addresses ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []netip.Addr
	for _, a := range addresses {
		list = append(list, netip.MustParseAddr(a))
	}
	h.addresses[name] = append(h.addresses[name], list)
}

// AddSRV adds a record of a service (matrix or matrix-fed) of a name.
func (h *Hosts) AddSRV(service, name, target string, port uint16) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := "_" + service + "._tcp." + name
	h.records[key] = append(h.records[key], &net.SRV{Target: target, Port: port})
}

// Asked returns what was asked so far.
func (h *Hosts) Asked() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.asked...)
}

// LookupNetIP implements outbound.DNS.
func (h *Hosts) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = append(h.asked, host)
	lists := h.addresses[host]
	if len(lists) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	if len(lists) > 1 {
		h.addresses[host] = lists[1:]
	}
	return lists[0], nil
}

// LookupSRV implements resolve.DNS.
func (h *Hosts) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := "_" + service + "._" + proto + "." + name
	h.asked = append(h.asked, key)
	list := h.records[key]
	if len(list) == 0 {
		return "", nil, &net.DNSError{Err: "no such host", Name: key, IsNotFound: true}
	}
	return key, list, nil
}
