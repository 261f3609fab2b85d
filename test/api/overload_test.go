package api

import (
	"bufio"
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

	"hansa/test/hstest"
)

// unhurt does something n times, and fails the test where most of them took longer than they should: a single one may take long because the
// machine is busy with something else.
func unhurt(t *testing.T, what string, n int, longest time.Duration, fn func()) {
	t.Helper()
	var took []time.Duration
	for range n {
		began := time.Now()
		fn()
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	if half := took[n/2]; half > longest {
		t.Errorf("%s took %v and more, want %v", what, half, longest)
	}
}

// Connections that say nothing in time are closed, and hold nobody else up.
func TestO483_SlowHeaders(t *testing.T) {
	t.Parallel()
	c := newScene(t, hstest.Options{})
	const slow = 200
	var closed atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range slow {
		wg.Go(func() {
			conn, err := net.Dial("tcp", c.Addr())
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = conn.Close() }()
			text := "GET /_matrix/client/versions HTTP/1.1\r\nHost: acme.example\r\nX-Slow: "
			if i%2 == 0 {
				text = "G"
			}
			if _, err := io.WriteString(conn, text); err != nil {
				t.Error(err)
				return
			}
			_ = conn.SetReadDeadline(time.Now().Add(40 * time.Second)) // a socket that is open takes it
			_, err = io.Copy(io.Discard, bufio.NewReader(conn))
			var timeout net.Error
			if !(errors.As(err, &timeout) && timeout.Timeout()) {
				closed.Add(1)
			}
		})
	}
	unhurt(t, "a send while others were slow", 20, 3*time.Second, func() { c.anna.Send(c.room, "meanwhile") })
	wg.Wait()
	if closed.Load() != slow {
		t.Errorf("%d of %d slow connections were closed after %v", closed.Load(), slow, time.Since(begin))
	}
}

// Headers, addresses and queries beyond measure are refused as such.
func TestO486_HeaderAndURLSize(t *testing.T) {
	t.Parallel()
	c := newScene(t, hstest.Options{})
	var cookies, query strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&cookies, "c%d=v; ", i)
		fmt.Fprintf(&query, "&k%d=v", i)
	}
	for what, a := range map[string]func(w io.Writer) error{
		"1 MB header": func(w io.Writer) error {
			_, err := io.WriteString(w, head(at(c.room)+"/send/m.x/1", c.anna.Token, "X-Long: "+strings.Repeat("x", 1<<20)))
			return err
		},
		"10,000 cookies": func(w io.Writer) error {
			_, err := io.WriteString(w, head(at(c.room)+"/send/m.x/1", c.anna.Token, "Cookie: "+cookies.String()))
			return err
		},
		"1 MB path": func(w io.Writer) error {
			_, err := io.WriteString(w, head("/"+strings.Repeat("x", 1<<20), c.anna.Token))
			return err
		},
		"10,000 keys": func(w io.Writer) error {
			_, err := io.WriteString(w, head("/sync?a=b"+query.String(), c.anna.Token))
			return err
		},
	} {
		answer, body, _ := raw(t, c.Server, a)
		if answer.StatusCode < 400 || answer.StatusCode >= 500 {
			t.Errorf("%s: %d %.100s", what, answer.StatusCode, body)
		}
	}
	goesOn(t, c.anna, c.room)
}

// Everybody comes back at once after a restart: each gets an answer, or is told when to come again.
func TestO487_SyncStorm(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		anna := s.User("anna")
		const people, devices = 25, 8
		var tokens []string
		for i := range people {
			u := s.User(fmt.Sprint("u", i))
			if i%5 == 0 {
				room := anna.CreateRoom(map[string]any{"preset": "public_chat"})
				anna.Send(room, "hello")
				u.Join(room)
			}
			tokens = append(tokens, u.Token)
		}
		s.Restart()
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: people * devices}, Timeout: time.Minute}
		var wg sync.WaitGroup
		var ok, later atomic.Int64
		for _, token := range tokens {
			for range devices {
				wg.Go(func() {
					req, err := http.NewRequest("GET", s.URL+"/_matrix/client/v3/sync?timeout=0", nil)
					if err != nil {
						t.Error(err)
						return
					}
					req.Header.Set("Authorization", "Bearer "+token)
					resp, err := client.Do(req)
					if err != nil {
						t.Error(err)
						return
					}
					b, err := io.ReadAll(resp.Body)
					_ = resp.Body.Close()
					switch {
					case err != nil:
						t.Error(err)
					case resp.StatusCode == 200 && strings.Contains(string(b), "next_batch"):
						ok.Add(1)
					case (resp.StatusCode == 503 || resp.StatusCode == 429) && resp.Header.Get("Retry-After") != "":
						later.Add(1)
					default:
						t.Errorf("%d %.200s", resp.StatusCode, b)
					}
				})
			}
		}
		wg.Wait()
		if ok.Load() == 0 {
			t.Error("nobody was served")
		}
		unhurt(t, "a sync after the storm", 3, 10*time.Second, func() { anna.Must("GET", "/sync?timeout=0", nil) })
		client.CloseIdleConnections()
	})
}

// A room in which everything changes all the time slows down itself, not the others.
func TestO491_HostileRoom(t *testing.T) {
	t.Parallel()
	c := newScene(t, hstest.Options{})
	quiet := c.ben.CreateRoom(map[string]any{"preset": "public_chat"})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var changes atomic.Int64
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				a := c.anna.Try("PUT", at(c.room)+"/state/com.example.s"+fmt.Sprint(w, i%50)+"/", []byte(fmt.Sprintf(`{"i":%d,"pad":%q}`, i, strings.Repeat("x", 2000))))
				if a.Status != 200 && a.Status != 429 && a.Status != 503 {
					t.Errorf("%d %s", a.Status, a.Raw)
					return
				}
				changes.Add(1)
			}
		})
	}
	unhurt(t, "a send in another room", 60, 3*time.Second, func() { c.ben.Send(quiet, "undisturbed") })
	close(stop)
	wg.Wait()
	if changes.Load() == 0 {
		t.Error("nothing changed in the hostile room")
	}
	goesOn(t, c.anna, c.room)
}
