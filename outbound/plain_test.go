package outbound

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
)

// Without TLS, and to private addresses, only those are asked whom the operator named, and no redirect of theirs is followed.
func TestDo_PlainToTrustedOnly(t *testing.T) {
	t.Parallel()
	asked := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.URL.Path == "/away" {
			http.Redirect(w, r, "/", http.StatusFound)
		}
	}))
	defer srv.Close()
	c, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	address := srv.Listener.Addr().String()
	r := Request{Address: address, ServerName: "127.0.0.1", Host: address, Path: "/"}
	plain, trusted, both, following := r, r, r, r
	plain.Plain, trusted.Trusted = true, true
	both.Plain, both.Trusted = true, true
	following = both
	following.FollowRedirects = true
	if _, err := c.Do(t.Context(), r); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a private address: %v", err)
	}
	if _, err := c.Do(t.Context(), plain); err == nil {
		t.Error("a stranger was asked without TLS")
	}
	if _, err := c.Do(t.Context(), trusted); err == nil {
		t.Error("a server without TLS answered with TLS")
	}
	if _, err := c.Do(t.Context(), following); err == nil {
		t.Error("redirects of a trusted address are followed")
	}
	if asked != 0 {
		t.Errorf("%d requests came through", asked)
	}
	if a, err := c.Do(t.Context(), both); err != nil || a.Status != 200 {
		t.Errorf("a trusted address: %v %v", a, err)
	}
	both.Path = "/away"
	if a, err := c.Do(t.Context(), both); err != nil || a.Status != 302 {
		t.Errorf("a redirect: %v %v", a, err)
	}
}
