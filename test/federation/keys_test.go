package federation_test

import (
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hansa/test/hstest"
)

// Who joins a room with people of many servers that are gone sees all of them: each of these servers is asked for its keys once, and the one
// that the room was joined through is asked about all of them in a few questions.
func TestJoin_RoomOfServersThatAreGone(t *testing.T) {
	each(t, 2, func(t *testing.T, f *hstest.Federation) {
		const gone = 60
		one, two := f.Servers[0], f.Servers[1]
		list, address, certFile, keyFile := f.CrowdElsewhere(gone)
		var mu sync.Mutex
		asked := map[string]int{} // for keys, since they are gone
		var away atomic.Bool
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		crowd := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if away.Load() {
				if r.URL.Path == "/_matrix/key/v2/server" {
					mu.Lock()
					asked[r.Host]++
					mu.Unlock()
				}
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			for _, o := range list {
				if string(o.Name) == r.Host && r.URL.Path == "/_matrix/key/v2/server" {
					_, _ = w.Write(o.Keys(time.Now().Add(time.Hour)))
					return
				}
			}
			http.NotFound(w, r)
		})}
		go func() { _ = crowd.ServeTLS(listener, certFile, keyFile) }() // it ends when it is closed
		t.Cleanup(func() { _ = crowd.Close() })
		anna := one.User("anna")
		room := anna.CreateRoom(map[string]any{"preset": "public_chat", "room_version": "11"})
		for _, o := range list {
			enter(t, o, "guest", room, "11")
		}
		away.Store(true)
		before := fetches(t, two)
		bob := two.User("bob")
		bob.Must("POST", via(room, one), map[string]any{})
		after := fetches(t, two)
		members := bob.Must("GET", "/rooms/"+hstest.Esc(room)+"/joined_members", nil).Get("joined").(map[string]any)
		if len(members) != gone+2 {
			t.Errorf("%d members are seen, want %d", len(members), gone+2)
		}
		mu.Lock()
		defer mu.Unlock()
		for host, n := range asked {
			if n != 1 {
				t.Errorf("%s was asked %d times for its keys, want once", host, n)
			}
		}
		if n := len(asked); n != gone {
			t.Errorf("%d servers were asked, want all %d", n, gone)
		}
		if n := after["ok"] - before["ok"]; n > 3 {
			t.Errorf("%v questions for keys were answered, want one about the server that was joined through and two about all others", n)
		}
		t.Logf("questions for keys: %v answered, %v not", after["ok"]-before["ok"], after["failed"]-before["failed"])
	})
}

// fetches are the questions for keys that a server has asked, by result.
func fetches(t *testing.T, s *hstest.Server) map[string]float64 {
	t.Helper()
	families, err := s.Metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, family := range families {
		if family.GetName() == "hansa_keyring_fetches_total" {
			for _, m := range family.GetMetric() {
				out[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	return out
}
