package outbound

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"hansa/outbound/outboundtest"
)

func quiet() *logrus.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return logrus.NewEntry(l)
}

func newClient(t *testing.T, o Options) *Client {
	t.Helper()
	o.Log = quiet()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// peer is a request to a test server under a name.
func peer(s *httptest.Server, name string) Request {
	return Request{Method: http.MethodGet, Address: s.Listener.Addr().String(), ServerName: name, Host: name, Path: "/x?y=%7E+1", Timeout: 20 * time.Second}
}

func checkUnreachable(t *testing.T, what string, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, ErrUnreachable) {
		t.Errorf("%s: error %v, want *Error", what, err)
	}
}

func TestDo_SendsWhatWasAsked(t *testing.T) {
	t.Parallel()
	ca := outboundtest.New(t)
	s := ca.Start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Proto", r.Proto)
		fmt.Fprintf(w, "%s %s %s %s %s", r.Method, r.Host, r.RequestURI, r.Header.Get("Authorization"), body)
	}), "one.example")
	c := newClient(t, Options{AllowPrivate: true, CAFile: ca.File})
	r := peer(s, "one.example")
	r.Method, r.Host, r.Path, r.Header, r.Body = http.MethodPut, "one.example:8448", "/_matrix/a%2Fb/!x:y?z=%20+a", http.Header{"Authorization": {"X-Matrix"}}, []byte("{}")
	resp, err := c.Do(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(resp.Body), "PUT one.example:8448 /_matrix/a%2Fb/!x:y?z=%20+a X-Matrix {}"; got != want {
		t.Errorf("the server saw %q, want %q", got, want)
	}
	if got := resp.Header.Get("X-Proto"); got != "HTTP/2.0" {
		t.Errorf("spoken: %s, want HTTP/2.0", got)
	}
}

func TestDo_ReusesConnectionsPerPeer(t *testing.T) {
	t.Parallel()
	ca := outboundtest.New(t)
	for _, proto := range []string{"h2", "http/1.1"} {
		var opened atomic.Int32
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host) }))
		s.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, time.Now().Add(time.Hour), "one.example", "two.example")}, NextProtos: []string{proto}}
		s.EnableHTTP2 = proto == "h2"
		s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				opened.Add(1)
			}
		}
		s.StartTLS()
		t.Cleanup(s.Close)
		c := newClient(t, Options{AllowPrivate: true, CAFile: ca.File})
		for range 5 {
			for _, name := range []string{"one.example", "two.example"} {
				resp, err := c.Do(context.Background(), peer(s, name))
				if err != nil || string(resp.Body) != name {
					t.Fatalf("%s: %v", name, err)
				}
			}
		}
		if n := opened.Load(); n != 2 {
			t.Errorf("%s: %d connections for two peers on one address, want 2", proto, n)
		}
	}
}

func TestU225_OddSpellings(t *testing.T) {
	t.Parallel()
	ca := outboundtest.New(t)
	s := ca.Start(t, http.NotFoundHandler(), "127.0.0.1")
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	c := newClient(t, Options{CAFile: ca.File})
	for _, host := range []string{"2130706433", "0x7f.1", "0177.0.0.1", "127.1", "①②⑦.0.0.1", "[::]", "[::1]", "[::ffff:127.0.0.1]", "localhost", "127.0.0.1", "%31%32%37.0.0.1", "127.0.0.1.", "0"} {
		r, err := FromURL("https://" + host + ":" + port + "/")
		if err != nil {
			continue // refused sooner
		}
		_, err = c.Do(context.Background(), r)
		checkUnreachable(t, host, err)
	}
	for _, u := range []string{"https://user@one.example/", "https://user:pass@one.example/", "http://one.example/", "file:///etc/passwd", "gopher://one.example/", "https:one.example", "https://", "//one.example", ""} {
		if _, err := FromURL(u); err == nil {
			t.Errorf("%q is taken for a plain https URL", u)
		}
	}
}

func TestU226_DNSRebinding(t *testing.T) {
	t.Parallel()
	ca := outboundtest.New(t)
	var hits atomic.Int32
	s := ca.Start(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }), "one.example")
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	dns := outboundtest.NewHosts()
	dns.Add("one.example", "127.0.0.1")
	dns.Add("mixed.example", "::1", "127.0.0.1", "10.0.0.1", "fd00::1", "169.254.169.254")
	c := newClient(t, Options{CAFile: ca.File, DNS: dns})
	for _, name := range []string{"one.example", "one.example", "mixed.example"} {
		r := peer(s, name)
		r.Address = net.JoinHostPort(name, port)
		_, err := c.Do(context.Background(), r)
		checkUnreachable(t, name, err)
		if !errors.Is(err, errRefused) {
			t.Errorf("%s: %v, want a refused address", name, err)
		}
	}
	if hits.Load() != 0 {
		t.Errorf("%d requests have arrived", hits.Load())
	}
}

func TestU227_RedirectToInside(t *testing.T) {
	t.Parallel()
	ca := outboundtest.New(t)
	inside := ca.Start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { t.Error("the inside was reached") }), "127.0.0.1")
	var to atomic.Value
	var hops atomic.Int32
	outside := ca.Start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hops.Add(1)
		w.Header().Set("Location", to.Load().(string))
		w.WriteHeader(http.StatusFound)
	}), "one.example")
	c := newClient(t, Options{CAFile: ca.File, Addresses: map[string]string{"one.example": outside.Listener.Addr().String()}})
	for _, location := range []string{inside.URL, "file:///etc/passwd", "gopher://x.example/", "http://one.example/", "https://user@127.0.0.1/", "/again", "https://one.example:99999/", "https://localhost/", "//[::1]/"} {
		to.Store(location)
		hops.Store(0)
		r := peer(outside, "one.example")
		r.Peer, r.FollowRedirects = "one.example", true
		_, err := c.Do(context.Background(), r)
		checkUnreachable(t, location, err)
		if n := hops.Load(); n > maxRedirects+1 {
			t.Errorf("%s: %d hops", location, n)
		}
	}
}

func TestU227_HeadersStayWithTheHost(t *testing.T) {
	t.Parallel()
	ca := outboundtest.New(t)
	second := ca.Start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%q %q %s", r.Header.Get("Authorization"), r.Header.Get("Cookie"), r.Host)
	}), "two.example")
	_, port, _ := net.SplitHostPort(second.Listener.Addr().String())
	first := ca.Start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://two.example:"+port+"/there", http.StatusTemporaryRedirect)
	}), "one.example")
	dns := outboundtest.NewHosts()
	dns.Add("two.example", "127.0.0.1")
	c := newClient(t, Options{AllowPrivate: true, CAFile: ca.File, DNS: dns})
	r := peer(first, "one.example")
	r.Header, r.FollowRedirects = http.Header{"Authorization": {"secret"}, "Cookie": {"a=b"}}, true
	resp, err := c.Do(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(resp.Body), `"" "" two.example:`+port; got != want {
		t.Errorf("the second host saw %s, want %s", got, want)
	}
}

func TestF127_TLSVerification(t *testing.T) {
	t.Parallel()
	ca, stranger := outboundtest.New(t), outboundtest.New(t)
	h := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request came through") })
	redirect := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) })
	c := newClient(t, Options{AllowPrivate: true, CAFile: ca.File})
	for what, s := range map[string]*httptest.Server{
		"another authority": stranger.Start(t, h, "one.example"),
		"expired":           outboundtest.StartWith(t, ca.Issue(t, time.Now().Add(-time.Hour), "one.example"), h),
		"wrong name":        ca.Start(t, h, "delegated.example"),
	} {
		_, err := c.Do(context.Background(), peer(s, "one.example"))
		checkUnreachable(t, what, err)
	}
	plain := httptest.NewServer(h)
	t.Cleanup(plain.Close)
	_, err := c.Do(context.Background(), peer(plain, "one.example"))
	checkUnreachable(t, "no TLS", err)

	resp, err := c.Do(context.Background(), peer(ca.Start(t, redirect, "one.example"), "one.example"))
	if err != nil || resp.Status != http.StatusFound {
		t.Errorf("a redirect that was not to be followed: %v, %v", resp, err)
	}
	old := ca.Start(t, h, "one.example")
	old.TLS.MaxVersion = tls.VersionTLS11
	_, err = c.Do(context.Background(), peer(old, "one.example"))
	checkUnreachable(t, "TLS 1.1", err)
}

func TestPins(t *testing.T) {
	t.Parallel()
	ca := outboundtest.New(t)
	good := ca.Issue(t, time.Now().Add(time.Hour), "one.example")
	pinned := outboundtest.StartWith(t, good, http.NotFoundHandler())
	other := ca.Start(t, http.NotFoundHandler(), "one.example")
	c := newClient(t, Options{AllowPrivate: true, CAFile: ca.File, Pins: map[string][]string{"one.example": {outboundtest.Pin(good)}}})
	for _, want := range []struct {
		s    *httptest.Server
		peer string
		ok   bool
	}{{pinned, "one.example", true}, {other, "one.example", false}, {other, "two.example", true}} {
		r := peer(want.s, "one.example")
		r.Peer = "one.example"
		if want.peer != "one.example" {
			r.Peer = "two.example"
		}
		if _, err := c.Do(context.Background(), r); (err == nil) != want.ok {
			t.Errorf("%s: %v, want success %v", want.peer, err, want.ok)
		}
	}
	if _, err := New(Options{Log: quiet(), Pins: map[string][]string{"one.example": {"short"}}}); err == nil {
		t.Error("a pin that is no hash is accepted")
	}
	if _, err := New(Options{Log: quiet(), CAFile: "/nonexistent"}); err == nil {
		t.Error("a missing file of authorities is accepted")
	}
}

func TestU233_CompressedBombs(t *testing.T) {
	t.Parallel()
	ca := outboundtest.New(t)
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	zeros := make([]byte, 1<<20)
	for range 64 {
		_, _ = z.Write(zeros)
	}
	_ = z.Close()
	s := ca.Start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(bomb.Bytes())
	}), "one.example")
	plain := ca.Start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for range 64 {
			_, _ = w.Write(zeros)
		}
	}), "one.example")
	c := newClient(t, Options{AllowPrivate: true, CAFile: ca.File})
	for _, s := range []*httptest.Server{s, plain} {
		if _, err := c.Do(context.Background(), peer(s, "one.example")); !errors.Is(err, ErrTooLarge) {
			t.Errorf("64 MiB: %v, want ErrTooLarge", err)
		}
	}
	r := peer(plain, "one.example")
	r.MaxBody = 64 << 20
	if resp, err := c.Do(context.Background(), r); err != nil || len(resp.Body) != 64<<20 {
		t.Errorf("an answer of exactly the limit: %v", err)
	}
}

func TestU238_LongURL(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	for _, u := range []string{"https://one.example/" + strings.Repeat("../", 1e5), "https://one.example/?" + strings.Repeat("a=1&", 1e6), "https://" + strings.Repeat("a", 2<<20)} {
		if _, err := FromURL(u); err == nil {
			t.Errorf("a URL of %d bytes is accepted", len(u))
		}
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
}

// slow serves one connection after another with bytes that drip.
func slow(t *testing.T, ca *outboundtest.Authority, header string) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, time.Now().Add(time.Hour), "one.example")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = http.ReadRequest(bufio.NewReader(conn))
				_, _ = io.WriteString(conn, header)
				tick := time.NewTicker(20 * time.Millisecond)
				defer tick.Stop()
				for range tick.C {
					if _, err := io.WriteString(conn, "x"); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

func TestF133_SlowDripPeer(t *testing.T) {
	t.Parallel()
	ca := outboundtest.New(t)
	c := newClient(t, Options{AllowPrivate: true, CAFile: ca.File})
	c.grace = 200 * time.Millisecond
	c.transport.ResponseHeaderTimeout = 200 * time.Millisecond
	for what, header := range map[string]string{"header": "HTTP/1.1 200 OK\r\nX-Long: ", "body": "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", "nothing": ""} {
		begin := time.Now()
		_, err := c.Do(context.Background(), Request{Method: http.MethodGet, Address: slow(t, ca, header), ServerName: "one.example", Host: "one.example", Path: "/", Timeout: time.Minute})
		checkUnreachable(t, what, err)
		if d := time.Since(begin); d > 10*time.Second {
			t.Errorf("%s: it took %v", what, d)
		}
	}
	hanging, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hanging.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	_, err = c.Do(ctx, Request{Method: http.MethodGet, Address: hanging.Addr().String(), ServerName: "one.example", Host: "one.example", Path: "/"})
	checkUnreachable(t, "handshake", err)
}

func TestU243_UniformErrors(t *testing.T) {
	t.Parallel()
	ca := outboundtest.New(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := closed.Addr().String()
	_ = closed.Close()
	wrong := ca.Start(t, http.NotFoundHandler(), "other.example").Listener.Addr().String()
	open := newClient(t, Options{AllowPrivate: true, CAFile: ca.File, DNS: outboundtest.NewHosts()})
	shut := newClient(t, Options{CAFile: ca.File})
	seen := map[string]bool{}
	for _, try := range []struct {
		c       *Client
		address string
	}{{open, address}, {open, wrong}, {open, "absent.example:443"}, {shut, wrong}, {shut, address}} {
		_, err := try.c.Do(context.Background(), Request{Method: http.MethodGet, Address: try.address, ServerName: "one.example", Host: "one.example", Path: "/"})
		checkUnreachable(t, try.address, err)
		seen[err.Error()] = true
	}
	if len(seen) != 1 {
		t.Errorf("the causes can be told apart: %v", seen)
	}
}

func TestU243_FailuresOfWebAreAsSlow(t *testing.T) {
	t.Parallel()
	c := newClient(t, Options{DNS: outboundtest.NewHosts()})
	web := c.HTTP(Web{Pad: 300 * time.Millisecond, Ports: []string{"443"}})
	for _, u := range []string{"https://127.0.0.1/", "https://one.example:22/", "http://one.example/", "https://absent.example/"} {
		begin := time.Now()
		resp, err := web.Get(u)
		if err == nil {
			_ = resp.Body.Close()
			t.Errorf("%s was reached", u)
		}
		if d := time.Since(begin); d < 300*time.Millisecond {
			t.Errorf("%s failed after %v", u, d)
		}
	}
}

func TestHTTP_IsAStandardClient(t *testing.T) {
	t.Parallel()
	ca := outboundtest.New(t)
	s := ca.Start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.Path, body)
	}), "127.0.0.1")
	c := newClient(t, Options{AllowPrivate: true, CAFile: ca.File})
	resp, err := c.HTTP(Web{}).Post(s.URL+"/push", "application/json", strings.NewReader(`{"a":1}`))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || string(body) != `POST /push {"a":1}` {
		t.Errorf("answer %q, %v", body, err)
	}
	if _, err := c.HTTP(Web{MaxRequest: 2}).Post(s.URL, "text/plain", strings.NewReader("abc")); err == nil {
		t.Error("a request beyond the limit was sent")
	}
}

// The environment may name a proxy; it is not asked. The variables are read once a process, which makes this a test of the transport.
func TestNew_NoProxy(t *testing.T) {
	t.Parallel()
	c := newClient(t, Options{})
	if c.transport.Proxy != nil {
		t.Error("a proxy may be asked")
	}
	if _, err := c.transport.DialContext(context.Background(), "tcp", "1.1.1.1:80"); !errors.Is(err, errNoTLS) {
		t.Errorf("a connection without TLS: %v", err)
	}
}

func TestDial_TriesTheOtherAddresses(t *testing.T) {
	t.Parallel()
	ca := outboundtest.New(t)
	s := ca.Start(t, http.NotFoundHandler(), "one.example")
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	dns := outboundtest.NewHosts()
	dns.Add("one.example", "127.0.0.2", "127.0.0.3", "127.0.0.1", "127.0.0.4") // the test server listens on 127.0.0.1 alone
	c := newClient(t, Options{AllowPrivate: true, CAFile: ca.File, DNS: dns})
	r := peer(s, "one.example")
	r.Address = net.JoinHostPort("one.example", port)
	if _, err := c.Do(context.Background(), r); err != nil {
		t.Error(err)
	}
}

func TestRequest_Malformed(t *testing.T) {
	t.Parallel()
	c := newClient(t, Options{AllowPrivate: true})
	for _, r := range []Request{{}, {Host: "a", ServerName: "a", Path: "x", Address: "127.0.0.1:1"}, {Host: "a", ServerName: "a", Path: "//x", Address: "127.0.0.1:1"},
		{Host: "a", ServerName: "a", Path: "/", Address: "no port"}, {Host: "a", ServerName: "a", Path: "/", Address: "127.0.0.1:1", Method: "BAD METHOD"},
		{Host: "a b", ServerName: "a", Path: "/", Address: "127.0.0.1:1"}, {Host: "a", ServerName: "a", Path: "/\r\nX: y", Address: "127.0.0.1:1"}} {
		if _, err := c.Do(context.Background(), r); err == nil {
			t.Errorf("%+v was sent", r)
		}
	}
}
