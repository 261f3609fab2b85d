package resolve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"hansa/matrix"
	"hansa/outbound"
	"hansa/outbound/outboundtest"
)

// world is a resolver with a DNS and a clock of the test, and one web server that answers for every name.
type world struct {
	*Resolver
	dns   *outboundtest.Hosts
	ca    *outboundtest.Authority
	now   atomic.Int64
	asked atomic.Int32 // requests for the well-known file
}

func newWorld(t *testing.T, o outbound.Options, wellKnown http.HandlerFunc) *world {
	t.Helper()
	w := &world{dns: outboundtest.NewHosts(), ca: outboundtest.New(t)}
	w.now.Store(time.Now().UnixNano())
	log := logrus.New()
	log.SetOutput(io.Discard)
	o.CAFile, o.DNS, o.Log = w.ca.File, w.dns, logrus.NewEntry(log)
	out, err := outbound.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(out.Close)
	w.Resolver = New(Deps{Out: out, DNS: w.dns, Log: o.Log, Now: w.clock})
	s := w.ca.Start(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != wellKnownPath && !strings.HasPrefix(r.URL.Path, "/hop") {
			t.Errorf("asked for %s", r.URL.Path)
		}
		w.asked.Add(1)
		wellKnown(rw, r)
	}), "one.example", "two.example")
	_, w.ports.wellKnown, _ = net.SplitHostPort(s.Listener.Addr().String())
	w.dns.Add("one.example", "127.0.0.1")
	return w
}

func (w *world) clock() time.Time { return time.Unix(0, w.now.Load()) }

func (w *world) pass(d time.Duration) { w.now.Add(int64(d)) }

func private() outbound.Options { return outbound.Options{AllowPrivate: true} }

func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }
}

func (w *world) check(t *testing.T, server string, want ...Target) {
	t.Helper()
	got, err := w.Resolve(context.Background(), matrix.ServerName(server))
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%s leads to %+v, %v; want %+v", server, got, err, want)
	}
}

func TestResolve_StepsThatNeedNoLookUp(t *testing.T) {
	t.Parallel()
	o := private()
	o.Addresses = map[string]string{"set.example": "10.1.2.3:1234", "set.example:99": "10.1.2.4:1"}
	w := newWorld(t, o, http.NotFound)
	w.check(t, "1.2.3.4", Target{"1.2.3.4:8448", "1.2.3.4", "1.2.3.4"})
	w.check(t, "1.2.3.4:99", Target{"1.2.3.4:99", "1.2.3.4", "1.2.3.4:99"})
	w.check(t, "[2001:db8::1]", Target{"[2001:db8::1]:8448", "2001:db8::1", "[2001:db8::1]"})
	w.check(t, "[2001:db8::1]:99", Target{"[2001:db8::1]:99", "2001:db8::1", "[2001:db8::1]:99"})
	w.check(t, "one.example:99", Target{"one.example:99", "one.example", "one.example:99"})
	w.check(t, "set.example", Target{"10.1.2.3:1234", "set.example", "set.example"})
	w.check(t, "set.example:99", Target{"10.1.2.4:1", "set.example", "set.example:99"})
	if got := w.dns.Asked(); len(got) != 0 || w.asked.Load() != 0 {
		t.Errorf("DNS was asked for %v, and %d files were fetched", got, w.asked.Load())
	}
	for _, bad := range []string{"", "a b", "one.example:0", "one.example:99999", "[::1", "@user", "one.example/x"} {
		if _, err := w.Resolve(context.Background(), matrix.ServerName(bad)); !errors.Is(err, ErrNowhere) {
			t.Errorf("%q: %v, want ErrNowhere", bad, err)
		}
	}
}

func TestResolve_Delegation(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file string
		want []Target
	}{
		"address":          {`{"m.server":"1.2.3.4"}`, []Target{{"1.2.3.4:8448", "1.2.3.4", "1.2.3.4"}}},
		"address and port": {`{"m.server":"1.2.3.4:5"}`, []Target{{"1.2.3.4:5", "1.2.3.4", "1.2.3.4:5"}}},
		"name and port":    {`{"m.server":"there.example:5","x":[1]}`, []Target{{"there.example:5", "there.example", "there.example:5"}}},
		"name":             {`{"m.server":"there.example"}`, []Target{{"there.example:8448", "there.example", "there.example"}}},
		"SRV":              {`{"m.server":"fed.example"}`, []Target{{"a.fed.example:1", "fed.example", "fed.example"}, {"b.fed.example:2", "fed.example", "fed.example"}}},
		"old SRV":          {`{"m.server":"old.example"}`, []Target{{"a.old.example:3", "old.example", "old.example"}}},
		"no file":          {``, []Target{{"srv.one.example:4", "one.example", "one.example"}}},
	} {
		w := newWorld(t, private(), says(c.file))
		w.dns.AddSRV("matrix-fed", "fed.example", "a.fed.example.", 1)
		w.dns.AddSRV("matrix-fed", "fed.example", "b.fed.example.", 2)
		w.dns.AddSRV("matrix", "fed.example", "wrong.example.", 9)
		w.dns.AddSRV("matrix", "old.example", "a.old.example.", 3)
		w.dns.AddSRV("matrix-fed", "one.example", "srv.one.example.", 4)
		t.Run(name, func(t *testing.T) { w.check(t, "one.example", c.want...) })
	}
}

func TestResolve_HostItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t, private(), http.NotFound)
	w.check(t, "one.example", Target{"one.example:8448", "one.example", "one.example"})
	if got, want := w.dns.Asked(), []string{"one.example", "_matrix-fed._tcp.one.example", "_matrix._tcp.one.example"}; !slices.Equal(got, want) {
		t.Errorf("DNS was asked for %v, want %v", got, want)
	}
}

func TestF125_WellKnownAbuse(t *testing.T) {
	t.Parallel()
	fallback := Target{"one.example:8448", "one.example", "one.example"}
	for name, h := range map[string]http.HandlerFunc{
		"redirect loop": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) },
		"redirect to http": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://one.example/x", http.StatusFound)
		},
		"100 MB": func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte(`{"m.server":"x.example","y":"` + strings.Repeat("y", 100<<20) + `"}`))
		},
		"51 KB":      says(`{"m.server":"x.example","y":"` + strings.Repeat("y", 51<<10) + `"}`),
		"port 0":     says(`{"m.server":"x.example:0"}`),
		"port 99999": says(`{"m.server":"x.example:99999"}`),
		"no JSON":    says(`m.server=x.example`),
		"no member":  says(`{"M.SERVER":"x.example"}`),
		"twice":      says(`{"m.server":"x.example","m.server":"y.example"}`),
		"number":     says(`{"m.server":7}`),
		"null":       says(`{"m.server":null}`),
		"array":      says(`[]`),
		"path":       says(`{"m.server":"x.example/../y"}`),
		"URL":        says(`{"m.server":"https://x.example"}`),
		"user":       says(`{"m.server":"me@x.example"}`),
		"control":    says("{\"m.server\":\"x.example\\r\\nHost: y\"}"),
		"status 404": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(404)
			fmt.Fprint(w, `{"m.server":"x.example"}`)
		},
		"trailing garbage": says(`{"m.server":"x.example"} {}`),
		"status 204":       func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) },
		"bad UTF-8":        says("{\"m.server\":\"x\xff.example\"}"),
		"redirect to a lie": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://127.0.0.1:1/", http.StatusFound)
		},
	} {
		w := newWorld(t, private(), h)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w.check(t, "one.example", fallback)
			if n := w.asked.Load(); n > 4 {
				t.Errorf("%d requests", n)
			}
		})
	}
	t.Run("to the inside", func(t *testing.T) {
		t.Parallel()
		for _, inside := range []string{"127.0.0.1:6379", "10.0.0.1", "[::1]:443", "localhost:22"} {
			// The host itself is dialled by an address that the operator set, so that only what it delegates to is judged.
			w := newWorld(t, outbound.Options{}, says(`{}`))
			w.wells.put("one.example", well{server: inside, next: w.clock().Add(time.Hour), last: w.clock().Add(time.Hour)})
			if _, err := w.Do(context.Background(), "one.example", outbound.Request{Method: "GET", Path: "/x"}); !errors.Is(err, outbound.ErrUnreachable) {
				t.Errorf("%s: %v, want unreachable", inside, err)
			}
		}
	})
	t.Run("three redirects", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, private(), func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/hop3" {
				fmt.Fprint(w, `{"m.server":"there.example:1"}`)
				return
			}
			next := map[string]string{wellKnownPath: "/hop1", "/hop1": "/hop2", "/hop2": "/hop3"}[r.URL.Path]
			http.Redirect(w, r, next, http.StatusPermanentRedirect)
		})
		w.check(t, "one.example", Target{"there.example:1", "there.example", "there.example:1"})
	})
}

func TestF125_WellKnownAges(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		name, value string
		want        time.Duration
	}{
		{"", "", 24 * time.Hour}, {"Cache-Control", "max-age=3600", time.Hour}, {"Cache-Control", "public, MAX-AGE=7200", 2 * time.Hour},
		{"Cache-Control", "max-age=99999999999999999", 48 * time.Hour}, {"Cache-Control", "max-age=99999999999999999999999", 24 * time.Hour},
		{"Cache-Control", "max-age=0", minAge}, {"Cache-Control", "no-store", minAge}, {"Cache-Control", "no-cache, max-age=9", minAge},
		{"Cache-Control", "max-age=-1", 24 * time.Hour}, {"Expires", now.Add(3 * time.Hour).Format(http.TimeFormat), 3 * time.Hour},
		{"Expires", "0", 24 * time.Hour}, {"Expires", now.Add(-time.Hour).Format(http.TimeFormat), minAge}, {"Expires", now.Add(99999 * time.Hour).Format(http.TimeFormat), 48 * time.Hour},
	} {
		h := http.Header{}
		if c.name != "" {
			h.Set(c.name, c.value)
		}
		if got := age(h, now); got != c.want {
			t.Errorf("%s: %s counts for %v, want %v", c.name, c.value, got, c.want)
		}
	}
}

func TestF125_WellKnownCache(t *testing.T) {
	t.Parallel()
	var file atomic.Value
	file.Store(`{"m.server":"there.example:1"}`)
	w := newWorld(t, private(), func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, file.Load()) })
	there, itself := Target{"there.example:1", "there.example", "there.example:1"}, Target{"one.example:8448", "one.example", "one.example"}
	ask := func(after time.Duration, requests int32, want Target) {
		t.Helper()
		w.pass(after)
		before := w.asked.Load()
		w.check(t, "one.example", want)
		if got := w.asked.Load() - before; got != requests {
			t.Errorf("%d requests, want %d", got, requests)
		}
	}
	ask(0, 1, there)
	ask(23*time.Hour, 0, there)
	file.Store("")
	ask(2*time.Hour, 1, there) // a failure does not undo what was good within two days
	ask(30*time.Second, 0, there)
	ask(time.Minute, 1, there)
	ask(90*time.Second, 0, there)
	ask(time.Minute, 1, there)
	ask(24*time.Hour, 1, itself)
	ask(59*time.Minute, 1, itself)
	file.Store(`{"m.server":"there.example:1"}`)
	ask(time.Hour, 1, there)
}

func TestF126_SRVToInside(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"10.0.0.5.", "localhost.", "inside.example.", "127.0.0.1"} {
		w := newWorld(t, outbound.Options{}, http.NotFound)
		w.dns.Add("inside.example", "127.0.0.1")
		w.dns.Add("localhost", "127.0.0.1", "::1")
		w.dns.Add("10.0.0.5", "10.0.0.5")
		w.dns.AddSRV("matrix-fed", "one.example", target, 8448)
		if _, err := w.Do(context.Background(), "one.example", outbound.Request{Method: "GET", Path: "/x"}); !errors.Is(err, outbound.ErrNotConnected) {
			t.Errorf("%s: %v, want no connection", target, err)
		}
	}
	w := newWorld(t, private(), http.NotFound)
	w.dns.AddSRV("matrix-fed", "one.example", ".", 0)
	if _, err := w.Resolve(context.Background(), "one.example"); !errors.Is(err, ErrNowhere) {
		t.Errorf("a record that says there is no service: %v", err)
	}
	w = newWorld(t, private(), http.NotFound)
	for i := range 1000 {
		w.dns.AddSRV("matrix-fed", "one.example", fmt.Sprintf("t%d.example.", i), 8448)
	}
	if got, err := w.Resolve(context.Background(), "one.example"); err != nil || len(got) != maxTargets {
		t.Errorf("%d targets, %v; want %d", len(got), err, maxTargets)
	}
}

func TestF127_CertificateIsForTheOriginalName(t *testing.T) {
	t.Parallel()
	w := newWorld(t, private(), http.NotFound)
	serve := func(name string) uint16 {
		s := w.ca.Start(t, says(name), name)
		return uint16(s.Listener.Addr().(*net.TCPAddr).Port)
	}
	w.dns.Add("target.example", "127.0.0.1")
	w.dns.AddSRV("matrix-fed", "one.example", "target.example.", serve("target.example")) // for its own name: wrong
	w.dns.AddSRV("matrix-fed", "one.example", "target.example.", serve("one.example"))
	resp, err := w.Do(context.Background(), "one.example", outbound.Request{Method: "GET", Path: "/x"})
	if err != nil || string(resp.Body) != "one.example" {
		t.Errorf("answered by %v, %v", resp, err)
	}
}

func TestDo_GoesOnToTheNextTarget(t *testing.T) {
	t.Parallel()
	w := newWorld(t, private(), http.NotFound)
	var hits atomic.Int32
	s := w.ca.Start(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		panic(http.ErrAbortHandler)
	}), "one.example")
	port := uint16(s.Listener.Addr().(*net.TCPAddr).Port)
	w.dns.Add("target.example", "127.0.0.1")
	w.dns.AddSRV("matrix-fed", "one.example", "absent.example.", port)
	w.dns.AddSRV("matrix-fed", "one.example", "target.example.", port)
	w.dns.AddSRV("matrix-fed", "one.example", "target.example.", port)
	if _, err := w.Do(context.Background(), "one.example", outbound.Request{Method: "POST", Path: "/x", Body: []byte("{}")}); !errors.Is(err, outbound.ErrUnreachable) {
		t.Errorf("%v, want unreachable", err)
	}
	if n := hits.Load(); n != 1 {
		t.Errorf("what had arrived was sent %d times", n)
	}
}

func TestResolve_OneQuestionAtATime(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	w := newWorld(t, private(), func(w http.ResponseWriter, r *http.Request) {
		<-gate
		fmt.Fprint(w, `{"m.server":"there.example:1"}`)
	})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { w.check(t, "one.example", Target{"there.example:1", "there.example", "there.example:1"}) })
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := w.Resolve(ctx, "one.example"); err == nil {
		t.Error("a caller that has left was answered")
	}
	close(gate)
	wg.Wait()
	if n := w.asked.Load(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

func TestCache_IsBounded(t *testing.T) {
	t.Parallel()
	c := newCache[int](10)
	for i := range 1000 {
		c.put(fmt.Sprint(i), i)
	}
	if len(c.byKey) != 10 || c.used.Len() != 10 {
		t.Errorf("%d and %d entries", len(c.byKey), c.used.Len())
	}
	if v, ok := c.get("999"); !ok || v != 999 {
		t.Error("the newest is gone")
	}
	c.drop("999")
	if _, ok := c.get("999"); ok {
		t.Error("what was dropped is still there")
	}
}

func FuzzWellKnown(f *testing.F) {
	for _, s := range []string{`{"m.server":"a.example:1"}`, `{"m.server":"[::1]"}`, `{}`, `[`, `{"m.server":null}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		server, err := parseWellKnown(body)
		if err != nil {
			return
		}
		if _, err := matrix.ParseServerName(server); err != nil {
			t.Errorf("%q leads to %q", body, server)
		}
	})
}
