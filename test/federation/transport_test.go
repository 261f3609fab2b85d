package federation_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hansa/config"
	"hansa/matrix"
	"hansa/matrix/signing"
	"hansa/test/hstest"
)

// dial opens a connection to the federation listener of one.example.
func dial(t *testing.T, f *hstest.Federation) net.Conn {
	t.Helper()
	// The certificate does not matter here.
	c, err := tls.Dial("tcp", f.Servers[0].FederationAddr(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c
}

// Requests whose end is in dispute: whatever follows them on the connection is never taken for another request.
func TestF90_RequestSmuggling(t *testing.T) {
	t.Parallel()
	f := hstest.NewFederation(t, 1, nil)
	const next = "GET /_matrix/federation/v1/version HTTP/1.1\r\nHost: one.example\r\n\r\n"
	const head = "PUT /_matrix/federation/v1/send/x HTTP/1.1\r\nHost: one.example\r\n"
	for name, text := range map[string]string{
		"both lengths":       head + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + next,
		"the other way":      head + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n2\r\n{}\r\n0\r\n\r\n" + next,
		"the other case":     head + "content-length: 5\r\ntransfer-encoding: CHUNKED\r\n\r\n0\r\n\r\n" + next,
		"folded":             head + "Transfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + next,
		"chunks end in LF":   head + "Transfer-Encoding: chunked\r\n\r\n2;a\n{}\r\n0\r\n\r\n" + next,
		"unknown encoding":   head + "Transfer-Encoding: xchunked\r\n\r\n" + next,
		"two encodings":      head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + next,
		"two lengths":        head + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}   " + next,
		"odd length":         head + "Content-Length: +5\r\n\r\n{}   " + next,
		"space before colon": head + "Content-Length : 5\r\n\r\n{}   " + next,
		"chunk with odd end": head + "Transfer-Encoding: chunked\r\n\r\n2;x\n{}\r\n0\r\n\r\n" + next,
		"bare CR":            head + "X: a\rContent-Length: 5\r\n\r\n" + next,
		"no colon":           head + "Nonsense\r\n\r\n" + next,
		"NUL":                head + "X: a\x00b\r\n\r\n" + next,
	} {
		c := dial(t, f)
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		all, err := io.ReadAll(c) // until the server closes
		if err != nil && len(all) == 0 {
			t.Errorf("%s: %v", name, err)
		}
		if n := strings.Count(string(all), "HTTP/1.1 "); n != 1 || strings.Contains(string(all), `"server"`) {
			t.Errorf("%s: %d answers: %s", name, n, all)
		}
		// What nobody can read is 400; an encoding that nobody knows is 501.
		if status := strings.SplitN(string(all), "\r\n", 2)[0]; !strings.Contains(status, " 400 ") && !(strings.Contains(name, "encoding") && strings.Contains(status, " 501 ")) {
			t.Errorf("%s: %s, want 400", name, status)
		}
	}
}

// Requests one after the other without waiting are answered in their order.
func TestF91_PipelinedRequests(t *testing.T) {
	t.Parallel()
	f := hstest.NewFederation(t, 1, nil)
	c := dial(t, f)
	var all strings.Builder
	for i := range 64 {
		path := "/_matrix/federation/v1/version"
		if i%3 == 0 {
			path = fmt.Sprintf("/_matrix/federation/v1/query%d", i)
		} else if i%3 == 1 {
			path = "/_matrix/federation/v1/event/$x"
		}
		_, _ = fmt.Fprintf(&all, "GET %s HTTP/1.1\r\nHost: one.example\r\n\r\n", path)
	}
	if _, err := io.WriteString(c, all.String()); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	for i := range 64 {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		if want := []int{404, 401, 200}[i%3]; resp.StatusCode != want {
			t.Errorf("answer %d: %d, want %d", i, resp.StatusCode, want)
		}
	}
}

// Whoever sends a header drop by drop holds a connection for seconds only.
func TestF133_SlowHeader(t *testing.T) {
	t.Parallel()
	f := hstest.NewFederation(t, 1, nil)
	c := dial(t, f)
	if _, err := io.WriteString(c, "GET /_matrix/federation/v1/version HTTP/1.1\r\nHost: one.exam"); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if all, err := io.ReadAll(c); err != nil && len(all) == 0 && !strings.Contains(err.Error(), "reset") {
		t.Errorf("%v after %v", err, time.Since(start))
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("the connection was closed after %v", took)
	}
}

// Whoever sends a body drop by drop, or never to its end, holds a connection for seconds only, and others are served meanwhile.
func TestF133_SlowBody(t *testing.T) {
	t.Parallel()
	f := hstest.NewFederation(t, 1, nil)
	o := f.Outsider(hstest.Outside)
	const target = "/_matrix/federation/v1/send/slow"
	h, err := signing.SignRequest(o.Key, "PUT", target, o.Name, "one.example", []byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	for name, drip := range map[string]bool{"never ends": false, "drop by drop": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, f)
			if _, err := fmt.Fprintf(c, "PUT %s HTTP/1.1\r\nHost: one.example\r\nAuthorization: %s\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{", target, h); err != nil {
				t.Fatal(err)
			}
			closed := make(chan struct{})
			if drip {
				go func() {
					tick := time.NewTicker(100 * time.Millisecond)
					defer tick.Stop()
					for {
						select {
						case <-closed:
							return
						case <-tick.C:
							_, _ = io.WriteString(c, " ") // an error shows when the answer is read
						}
					}
				}()
			}
			start := time.Now()
			all, err := io.ReadAll(c)
			close(closed)
			if took := time.Since(start); took > 40*time.Second {
				t.Errorf("the connection was closed after %v (%v)", took, err)
			}
			if strings.Contains(string(all), " 200 ") {
				t.Errorf("answer to half a request: %s", all)
			}
		})
	}
}

// Without a federation listener, federation is served where clients are, behind a proxy that does the TLS.
func TestFederationOnTheClientListener(t *testing.T) {
	t.Parallel()
	f := hstest.NewFederation(t, 1, func(_ int, o *hstest.Options) {
		o.Change = func(c *config.Config) {
			c.Listen.Federation, c.TLS = "", config.TLS{}
			c.Tenants[0].PublicURL = "https://matrix.one.example:8443"
		}
	})
	s, o := f.Servers[0], f.Outsider(hstest.Outside)
	const target = "/_matrix/federation/v1/event/$nothing"
	h, err := signing.SignRequest(o.Key, "GET", target, o.Name, "one.example", nil)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest("GET", s.URL+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", h)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 404 {
		t.Errorf("a signed request: %d", resp.StatusCode)
	}
	if a := s.Do("GET", "/.well-known/matrix/server", "", nil); a.String("m.server") != "matrix.one.example:8443" {
		t.Errorf("well-known: %s", a.Raw)
	}
	if a := s.Do("GET", "/_matrix/key/v2/server", "", nil); a.String("server_name") != "one.example" {
		t.Errorf("keys: %s", a.Raw)
	}
	if a := s.Do("GET", "/_matrix/client/versions", "", nil); a.Status != 200 {
		t.Errorf("client API: %d", a.Status)
	}
}

// With a listener of its own, federation is nowhere else.
func TestFederationHasItsOwnListener(t *testing.T) {
	t.Parallel()
	f := hstest.NewFederation(t, 1, nil)
	for _, path := range []string{"/_matrix/key/v2/server", "/_matrix/federation/v1/event/$x", "/_matrix/federation/v1/send/x"} {
		if a := f.Servers[0].Do("GET", path, "", nil); a.Status != 404 {
			t.Errorf("%s on the client listener: %d", path, a.Status)
		}
	}
	if a := f.Servers[0].Do("GET", "/.well-known/matrix/server", "", nil); a.String("m.server") == "" {
		t.Errorf("well-known: %s", a.Raw)
	}
	if a := f.Outsider(hstest.Outside).Raw("GET", "one.example", "/_matrix/client/versions", nil); a.Status != 404 {
		t.Errorf("the client API on the federation listener: %d", a.Status)
	}
}

// Each tenant of a deployment has its own keys and its own name, on one listener.
func TestTenantsOnOneListener(t *testing.T) {
	t.Parallel()
	f := hstest.NewFederation(t, 1, func(_ int, o *hstest.Options) { o.Tenants = []string{"one.example", "other.example"} })
	o := f.Outsider(hstest.Outside)
	for _, tenant := range []matrix.ServerName{"one.example", "other.example"} {
		if a := o.Raw("GET", tenant, "/_matrix/key/v2/server", nil); a.String("server_name") != string(tenant) {
			t.Errorf("keys of %s: %s", tenant, a.Raw)
		}
	}
	anna := f.Servers[0].User("anna")
	id := anna.CreateRoom(map[string]any{"preset": "public_chat", "room_version": "11"})
	sent := anna.Send(id, "hello")
	g := enter(t, o, "fred", id, "11")
	if a := o.Do("GET", "one.example", "/_matrix/federation/v1/event/"+hstest.Esc(sent), nil); a.Status != 200 {
		t.Errorf("by way of the tenant that is in the room: %d %s", a.Status, a.Raw)
	}
	a := o.Do("GET", "other.example", "/_matrix/federation/v1/event/"+hstest.Esc(sent), nil)
	b := o.Do("GET", "other.example", "/_matrix/federation/v1/event/$nothing", nil)
	if a.Status != 404 || string(a.Raw) != string(b.Raw) {
		t.Errorf("by way of a tenant that is not: %d %s", a.Status, a.Raw)
	}
	_ = g
}

// A renewed certificate is used without a restart, a broken one is not.
func TestTLS_RenewedCertificate(t *testing.T) {
	t.Parallel()
	f := hstest.NewFederation(t, 1, nil)
	s := f.Servers[0]
	serial := func() string {
		c, err := tls.Dial("tcp", s.FederationAddr(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	if err := os.WriteFile(filepath.Join(s.Dir, "tls.crt"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if serial() != before {
		t.Error("another certificate after nonsense was written")
	}
	f.Certificate(s.Dir, "one.example")
	s.Restart()
	if serial() == before {
		t.Error("the old certificate after a restart")
	}
}
