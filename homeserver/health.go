package homeserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"hansa/homeserver/stream"
	"hansa/storage"
)

const (
	// askedLately is how long somebody who asks /readyz counts as one who sends or takes away requests by the answer.
	askedLately = time.Minute
	// toldOften is how often each of them is told that this node stops before it does: load balancers want to hear a thing two or
	// three times.
	toldOften = 3
	// probeFor is how long the database may take to prove that it takes writes; probeEvery is how long the answer is good.
	probeFor   = 2 * time.Second
	probeEvery = 200 * time.Millisecond
)

// errDraining is what /readyz says while this node stops.
var errDraining = errors.New("this node is stopping")

// health is what this node tells about itself, and who asks.
type health struct {
	now      func() time.Time
	draining atomic.Bool

	mu     sync.Mutex
	askers map[string]*asker // guarded by mu: of /readyz, by address
	told   chan struct{}     // guarded by mu: closed and replaced when an asker was told that this node stops

	probing sync.Mutex // held while the database is tried
	probed  time.Time  // guarded by probing: when it was last tried
	last    error      // guarded by probing: what came of it
}

// asker is somebody who asks /readyz again and again: a load balancer.
type asker struct {
	last  time.Time
	every time.Duration // 0 until there were two questions
	told  int
}

func newHealth(now func() time.Time) *health {
	return &health{now: now, askers: map[string]*asker{}, told: make(chan struct{})}
}

// asked notes a question after readiness, and tells whether this node stops.
func (h *health) asked(from string) (draining bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	for addr, a := range h.askers {
		if now.Sub(a.last) > askedLately {
			delete(h.askers, addr)
		}
	}
	a := h.askers[from]
	if a == nil {
		if a = new(asker); len(h.askers) < 100 {
			h.askers[from] = a
		}
	} else {
		a.every = now.Sub(a.last)
	}
	a.last = now
	if !h.draining.Load() {
		return false
	}
	a.told++
	close(h.told)
	h.told = make(chan struct{})
	return true
}

// untold counts who is still to hear that this node stops, and says how long after the last time a question comes again.
func (h *health) untold() (n int, every time.Duration, told <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range h.askers {
		if a.every == 0 && a.told == 0 || h.now().Sub(a.last) > askedLately {
			continue // asked once: a person
		}
		if every = max(every, a.every); a.told < toldOften {
			n++
		}
	}
	return n, every, h.told
}

// drain makes /readyz fail and goes on until those who ask it have heard of it and sent their requests elsewhere, at most until ctx ends.
// Where nobody asks, it returns at once.
func (h *health) drain(ctx context.Context) {
	h.draining.Store(true)
	for {
		n, every, told := h.untold()
		if n == 0 {
			if every > 0 { // what was sent on its way by the last answer but one arrives
				wait(ctx, min(every, time.Second))
			}
			return
		}
		select {
		case <-told:
		case <-ctx.Done():
			return
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// leaving tells clients of a node that stops to open their next connection anew, so that a load balancer can take it elsewhere.
func (h *health) leaving(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// CheckReady tells whether the server can do its work: the database takes writes, policy is loaded, and the node is not stopping.
func (s *Server) CheckReady(ctx context.Context) error {
	if s.health.draining.Load() {
		return errDraining
	}
	if s.Policy.Revision() == "" {
		return errors.New("no policy is active")
	}
	h := s.health
	h.probing.Lock()
	defer h.probing.Unlock()
	if now := h.now(); now.Sub(h.probed) < probeEvery && !now.Before(h.probed) {
		return h.last
	}
	ctx, cancel := context.WithTimeout(ctx, probeFor)
	defer cancel()
	h.last = s.probe(ctx)
	h.probed = h.now()
	return h.last
}

// probe writes to the database. What it writes moves on with every second.
func (s *Server) probe(ctx context.Context) error {
	name, _ := os.Hostname() // only a label
	done := make(chan error, 1)
	go func() {
		done <- stream.Guard(func() error {
			return s.DB.Update(ctx, func(tx *storage.Tx) error { return tx.SetCursor("probe."+name, s.now().Unix()) })
		})
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("the database does not answer: %w", ctx.Err())
	}
}

// healthz answers whether the process lives.
func healthz(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) }

// readyz answers whether requests should be sent to this node.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	from, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		from = r.RemoteAddr
	}
	if s.health.asked(from) {
		http.Error(w, "not ready: this node is stopping", http.StatusServiceUnavailable)
		return
	}
	if err := s.CheckReady(r.Context()); err != nil {
		s.log.WithError(err).Warn("not ready")
		http.Error(w, "not ready: the database does not take writes, or policy is missing", http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("ready\n"))
}
