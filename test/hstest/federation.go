package hstest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hansa/config"
	"hansa/matrix"
	"hansa/matrix/signing"
)

// FederationPort is the port that servers of a Federation listen on for each other, each on a loopback address of its own.
const FederationPort = "8448"

// Federation is several servers that reach each other over TLS, with certificates of one authority.
type Federation struct {
	t testing.TB
	// Servers are the running servers. The first tenant of server i is the i-th of one.example, two.example, three.example, ...
	Servers []*Server
	*Authority
	addresses map[matrix.ServerName]string
}

// NewFederation starts n servers, each with one tenant unless the options name others, all of them each other's partners. change, when not
// nil, changes the options of server i before it starts. HANSA_TEST_POSTGRES and the like are as with New.
func NewFederation(t testing.TB, n int, change func(i int, o *Options)) *Federation {
	t.Helper()
	f := &Federation{t: t, Authority: NewAuthority(t), addresses: map[matrix.ServerName]string{}}
	names := []string{"one.example", "two.example", "three.example", "four.example", "five.example", "six.example", "seven.example", "eight.example"}
	options := make([]Options, n)
	for i := range options {
		options[i] = Options{Dir: t.TempDir(), Tenants: []string{names[i]}}
		if change != nil {
			change(i, &options[i])
		}
		address := net.JoinHostPort(FreeLoopback(t), FederationPort)
		for _, tenant := range options[i].Tenants {
			f.addresses[matrix.ServerName(tenant)] = address
		}
	}
	for _, name := range []matrix.ServerName{Outside, Stranger} {
		f.addresses[name] = net.JoinHostPort(FreeLoopback(t), FederationPort)
	}
	crowd := net.JoinHostPort(FreeLoopback(t), FederationPort)
	for i := range MaxCrowd {
		f.addresses[peer(i)] = crowd
	}
	for i := range options {
		f.Servers = append(f.Servers, New(t, f.prepare(options[i])))
	}
	return f
}

// prepare gives a server its certificate, its address and those of the others.
func (f *Federation) prepare(o Options) Options {
	f.t.Helper()
	cert, key := f.Certificate(o.Dir, o.Tenants...)
	own := map[string]bool{}
	for _, tenant := range o.Tenants {
		own[tenant] = true
	}
	inner := o.Change
	o.Change = func(c *config.Config) {
		c.Listen.Federation = f.addresses[matrix.ServerName(o.Tenants[0])]
		c.TLS = config.TLS{Certificate: cert, Key: key}
		c.Federation.TrustedCAFile = f.CAFile
		c.Federation.AllowPrivateAddresses = true
		c.Federation.DefaultPartners = []string{"*"}
		for name, address := range f.addresses {
			if !own[string(name)] {
				c.Federation.Servers = append(c.Federation.Servers, config.RemoteServer{Name: name, Address: address})
			}
		}
		if inner != nil {
			inner(c)
		}
	}
	return o
}

// FreeLoopback is a loopback address on which nothing listens. Every test has its own, so that a server can stop and start again.
func FreeLoopback(t testing.TB) string {
	t.Helper()
	for range 100 {
		host := fmt.Sprintf("127.%d.%d.%d", 1+mrand.IntN(250), mrand.IntN(250), 1+mrand.IntN(250))
		if l, err := net.Listen("tcp", net.JoinHostPort(host, FederationPort)); err == nil {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			return host
		}
	}
	t.Fatal("no loopback address is free")
	return ""
}

// Authority makes certificates that servers of a test trust.
type Authority struct {
	t testing.TB
	// CAFile holds the certificate of the authority.
	CAFile string
	ca     *x509.Certificate
	key    *ecdsa.PrivateKey
}

// NewAuthority makes an authority.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Hansa test authority"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	f := &Authority{t: t, key: key, CAFile: filepath.Join(t.TempDir(), "ca.pem")}
	if f.ca, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	writePEM(t, f.CAFile, "CERTIFICATE", der)
	return f
}

// Certificate makes a certificate for host names and writes it and its key below a directory.
func (f *Authority) Certificate(dir string, names ...string) (certFile, keyFile string) {
	f.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: names[0]}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, n := range names {
		template.DNSNames = append(template.DNSNames, matrix.ServerName(n).Host())
	}
	der, err := x509.CreateCertificate(rand.Reader, template, f.ca, &key.PublicKey, f.key)
	if err != nil {
		f.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		f.t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	writePEM(f.t, certFile, "CERTIFICATE", der)
	writePEM(f.t, keyFile, "PRIVATE KEY", private)
	return certFile, keyFile
}

func writePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Client is an HTTP client that reaches the servers by their names, as another server would.
func (f *Federation) Client() *http.Client {
	pool := x509.NewCertPool()
	pool.AddCert(f.ca)
	dialer := &net.Dialer{}
	return &http.Client{Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			if known, ok := f.addresses[matrix.ServerName(host)]; ok {
				address = known
			}
			return dialer.DialContext(ctx, network, address)
		}}}
}

// Outsider is another server as far as a test needs one: it has a name and a key, publishes the key and makes signed requests.
type Outsider struct {
	f    *Federation
	Name matrix.ServerName
	Key  signing.Key
	http *http.Client
	// Requests are those that were made of it, method and path.
	Requests chan string
}

// The names that outsiders may have: the servers know where they are.
const (
	Outside  = "outside.example"
	Stranger = "stranger.example"
)

// Outsider starts a server that does nothing but publish its key; its name is Outside or Stranger.
func (f *Federation) Outsider(name string) *Outsider {
	f.t.Helper()
	key, err := signing.Generate(rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	o := &Outsider{f: f, Name: matrix.ServerName(name), Key: key, http: f.Client(), Requests: make(chan string, 10000)}
	dir := f.t.TempDir()
	certFile, keyFile := f.Certificate(dir, name)
	f.listen(f.addresses[matrix.ServerName(name)], certFile, keyFile, o.serve)
	return o
}

// MaxCrowd is how many outsiders Crowd can make.
const MaxCrowd = 128

func peer(i int) matrix.ServerName { return matrix.ServerName(fmt.Sprintf("peer%d.example", i)) }

// Crowd makes n outsiders, peer0.example and so on, which share one listener.
func (f *Federation) Crowd(n int) []*Outsider {
	f.t.Helper()
	list, address, certFile, keyFile := f.CrowdElsewhere(n)
	byName := map[string]*Outsider{}
	for _, o := range list {
		byName[string(o.Name)] = o
	}
	f.listen(address, certFile, keyFile, func(w http.ResponseWriter, r *http.Request) {
		if o := byName[r.Host]; o != nil {
			o.serve(w, r)
			return
		}
		http.NotFound(w, r)
	})
	return list
}

// CrowdElsewhere makes n outsiders like Crowd, for whom somebody else has to listen: at an address, with a certificate.
func (f *Federation) CrowdElsewhere(n int) (list []*Outsider, address, certFile, keyFile string) {
	f.t.Helper()
	var names []string
	client := f.Client()
	client.Transport.(*http.Transport).MaxIdleConnsPerHost = 16
	for i := range n {
		key, err := signing.Generate(rand.Reader)
		if err != nil {
			f.t.Fatal(err)
		}
		list = append(list, &Outsider{f: f, Name: peer(i), Key: key, http: client, Requests: make(chan string, 100)})
		names = append(names, string(peer(i)))
	}
	certFile, keyFile = f.Certificate(f.t.TempDir(), names...)
	return list, f.addresses[peer(0)], certFile, keyFile
}

// listen serves over TLS until the test ends.
func (f *Federation) listen(address, certFile, keyFile string, fn http.HandlerFunc) {
	f.t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		f.t.Fatal(err)
	}
	srv := &http.Server{Handler: fn, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.ServeTLS(l, certFile, keyFile) // always an error, in the end that it was closed
	}()
	f.t.Cleanup(func() { _ = srv.Close(); <-done })
}

func (o *Outsider) serve(w http.ResponseWriter, r *http.Request) {
	select {
	case o.Requests <- r.Method + " " + r.URL.Path:
	default:
	}
	if r.URL.Path != "/_matrix/key/v2/server" {
		http.NotFound(w, r)
		return
	}
	_, _ = w.Write(o.Keys(time.Now().Add(24 * time.Hour)))
}

// Keys is the signed answer that publishes the key.
func (o *Outsider) Keys(until time.Time) []byte {
	body, err := json.Marshal(map[string]any{"server_name": o.Name, "valid_until_ts": until.UnixMilli(), "old_verify_keys": map[string]any{},
		"verify_keys": map[string]any{string(o.Key.ID): map[string]any{"key": o.Key.Public().String()}}})
	if err != nil {
		o.f.t.Fatal(err)
	}
	signed, err := signing.SignJSON(body, o.Name, o.Key)
	if err != nil {
		o.f.t.Fatal(err)
	}
	return signed
}

// Do makes a signed request of a tenant of a server; body may be nil, []byte (sent as it is) or anything that encodes to JSON.
func (o *Outsider) Do(method string, to matrix.ServerName, target string, body any) Answer {
	o.f.t.Helper()
	raw := encode(o.f.t, body)
	header, err := signing.SignRequest(o.Key, method, target, o.Name, to, raw)
	if err != nil {
		o.f.t.Fatal(err)
	}
	return o.Raw(method, to, target, raw, header)
}

// Raw makes a request with the given Authorization headers.
func (o *Outsider) Raw(method string, to matrix.ServerName, target string, body []byte, authorization ...string) Answer {
	o.f.t.Helper()
	u := &url.URL{Scheme: "https", Host: to.Host(), Opaque: target} // the target goes out as it stands, without another encoding
	req := &http.Request{Method: method, URL: u, Host: string(to), Header: http.Header{"Authorization": authorization}}
	if len(authorization) == 0 {
		delete(req.Header, "Authorization")
	}
	if body != nil {
		req.Body, req.ContentLength = io.NopCloser(strings.NewReader(string(body))), int64(len(body))
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := o.http.Do(req)
	if err != nil {
		o.f.t.Fatalf("%s %s: %v", method, target, err)
	}
	defer func() { _ = resp.Body.Close() }()
	a := Answer{Status: resp.StatusCode, Header: resp.Header}
	if a.Raw, err = io.ReadAll(resp.Body); err != nil {
		o.f.t.Fatalf("%s %s: %v", method, target, err)
	}
	_ = json.Unmarshal(a.Raw, &a.JSON) // not every answer is an object
	return a
}

func encode(t testing.TB, body any) []byte {
	t.Helper()
	switch b := body.(type) {
	case nil:
		return nil
	case []byte:
		return b
	}
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
