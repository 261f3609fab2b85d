package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// oneRoom is a server with one room that delivers every message once, or as often as times says.
type oneRoom struct {
	times int

	mu     sync.Mutex
	events []json.RawMessage
	users  int
}

func (s *oneRoom) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch path := strings.TrimPrefix(r.URL.Path, apiV3); {
	case path == "/register":
		s.users++
		fmt.Fprintf(w, `{"user_id":"@u%d:x","access_token":"t"}`, s.users)
	case path == "/createRoom":
		fmt.Fprint(w, `{"room_id":"!r:x"}`)
	case strings.HasPrefix(path, "/join/"):
		fmt.Fprint(w, `{"room_id":"!r:x"}`)
	case path == "/sync":
		since := 0
		fmt.Sscan(r.URL.Query().Get("since"), &since)
		events, _ := json.Marshal(s.events[since:])
		fmt.Fprintf(w, `{"next_batch":"%d","rooms":{"join":{"!r:x":{"timeline":{"events":%s}}}}}`, len(s.events), events)
	default:
		var content json.RawMessage
		_ = json.NewDecoder(r.Body).Decode(&content)
		for range s.times {
			s.events = append(s.events, json.RawMessage(fmt.Sprintf(`{"type":"m.room.message","content":%s}`, content)))
		}
		fmt.Fprint(w, `{"event_id":"$e"}`)
	}
}

func TestRun_CountsDeliveries(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ times, delivered, doubled int64 }{
		"each once": {1, 1, 0},
		"each lost": {0, 0, 0},
		"doubled":   {2, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(&oneRoom{times: int(tc.times)})
			defer srv.Close()
			ctx := t.Context()
			if tc.delivered == 0 { // only then it waits until it is told to end
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, 5*time.Second)
				defer cancel()
			}
			var out, log bytes.Buffer
			err := run(ctx, []string{"-url", srv.URL, "-users", "3", "-members", "3", "-rooms", "1", "-senders", "1", "-seconds", "1"}, &out, &log)
			if tc.delivered == 0 {
				if err == nil {
					t.Error("a run that lost everything waited for it and still ended in time")
				}
				return
			}
			if err != nil {
				t.Fatal(err, log.String())
			}
			var r result
			if err := json.Unmarshal(out.Bytes(), &r); err != nil {
				t.Fatal(err)
			}
			if r.Sent == 0 || r.Expected != 3*r.Sent || r.Delivered != tc.delivered*r.Expected {
				t.Errorf("sent %d, expected %d, delivered %d", r.Sent, r.Expected, r.Delivered)
			}
			if r.Doubled < tc.doubled*r.Expected/2 || tc.doubled == 0 && r.Doubled != 0 {
				t.Errorf("doubled %d of %d", r.Doubled, r.Expected)
			}
		})
	}
}

func TestRun_RefusesUnknownShapes(t *testing.T) {
	t.Parallel()
	if err := run(t.Context(), []string{"-shape", "round"}, &bytes.Buffer{}, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "small, hot, wide") {
		t.Errorf("error = %v", err)
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	v := []float64{5, 1, 4, 2, 3}
	for q, want := range map[float64]float64{0: 1, 0.5: 3, 0.99: 4, 1: 5} {
		if got := quantile(v, q); got != want {
			t.Errorf("quantile(%v) = %v, want %v", q, got, want)
		}
	}
}
