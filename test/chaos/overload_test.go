package chaos

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// dial opens a raw connection to a server.
func dial(t *testing.T, s *Server) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// pulse sends one message after the other until stop is closed and returns how long each took, in ascending order. sent counts them.
func pulse(t *testing.T, c *Client, p *Person, room, name string, stop <-chan struct{}, sent *atomic.Int64) []time.Duration {
	t.Helper()
	var took []time.Duration
	for i := 0; ; i++ {
		select {
		case <-stop:
			slices.Sort(took)
			return took
		case <-time.After(10 * time.Millisecond):
		}
		began := time.Now()
		a, err := c.Do(context.Background(), "PUT", roomPath(room, fmt.Sprint("/send/m.room.message/", name, i)), p.Token, message("x"))
		if err != nil || a.Status != 200 && !undecided(a) {
			t.Errorf("a send of somebody who does nothing wrong: %v, %v", a, err)
			continue
		}
		took = append(took, time.Since(began))
		sent.Add(1)
	}
}

// enough is how many sends are needed to say how long they take.
const enough = 20

// within runs fn while somebody sends, and returns how long the sends took. fn may look how many there were so far.
func within(t *testing.T, c *Client, p *Person, room, name string, fn func(sent *atomic.Int64)) []time.Duration {
	t.Helper()
	stop := make(chan struct{})
	var took []time.Duration
	var sent atomic.Int64
	var wait sync.WaitGroup
	wait.Go(func() { took = pulse(t, c, p, room, name, stop, &sent) })
	fn(&sent)
	close(stop)
	wait.Wait()
	return took
}

// swift fails the test where half of the sends took longer than they should, or some of them so long that more than a busy machine is the reason.
func swift(t *testing.T, took []time.Duration, longest time.Duration) {
	t.Helper()
	if p50, p99 := at(took, 0.5), at(took, 0.99); p50 > longest || p99 > bar(longest) {
		t.Errorf("%d sends meanwhile, half of them within %v, 99 %% within %v; want %v", len(took), p50, p99, longest)
	}
}

func at(list []time.Duration, share float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	return list[int(float64(len(list)-1)*share)]
}

// Connections that send a byte now and then are closed when their time for the header is over, and cost nobody else anything.
func TestO483_Slowloris(t *testing.T) {
	t.Parallel()
	s := newServer(t, "sqlite")
	if _, err := s.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	c := NewClient(s.URL)
	p, room := someone(t, c, "anna")
	const connections = 400
	var closed atomic.Int64
	var slowest atomic.Int64
	took := within(t, c, p, room, "slow", func(*atomic.Int64) {
		var wait sync.WaitGroup
		for range connections {
			conn := dial(t, s)
			wait.Go(func() {
				began := time.Now()
				if _, err := conn.Write([]byte("GET /_matrix/client/versions HTTP/1.1\r\nHost: a\r\nX-Slow: ")); err != nil {
					t.Error(err)
				}
				for time.Since(began) < 30*time.Second {
					_ = conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond)) // a connection has deadlines
					n, err := conn.Read(make([]byte, 512))
					if timeout, ok := err.(net.Error); n > 0 || ok && timeout.Timeout() {
						_, _ = conn.Write([]byte("x")) // fails when it is closed, which the next read tells
						continue
					}
					closed.Add(1)
					slowest.Store(max(slowest.Load(), int64(time.Since(began))))
					return
				}
			})
		}
		wait.Wait()
	})
	if n := closed.Load(); n != connections {
		t.Errorf("%d of %d slow connections were closed", n, connections)
	}
	if d := time.Duration(slowest.Load()); d > 20*time.Second {
		t.Errorf("a slow connection lived %v, want about 10 s", d)
	}
	if len(took) == 0 {
		t.Error("nobody could send meanwhile")
	}
	swift(t, took, 3*time.Second)
}

// Headers and URLs beyond all measure get an answer that says so, and the next request is answered as ever.
func TestO486_HeaderAndURLSize(t *testing.T) {
	t.Parallel()
	s := newServer(t, "sqlite")
	if _, err := s.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	keys := make([]string, 100_000)
	for i := range keys {
		keys[i] = fmt.Sprint("k", i, "=1")
	}
	for name, head := range map[string]string{
		"1 MB of one header":  "GET /_matrix/client/versions HTTP/1.1\r\nHost: a\r\nX-Big: " + strings.Repeat("x", 1<<20) + "\r\n\r\n",
		"10,000 cookies":      "GET /_matrix/client/versions HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("Cookie: a=b\r\n", 10_000) + "\r\n",
		"100,000 query keys":  "GET /_matrix/client/v3/sync?" + strings.Join(keys, "&") + " HTTP/1.1\r\nHost: a\r\n\r\n",
		"a path of 1 MB":      "GET /_matrix/client/v3/" + strings.Repeat("a/", 1<<19) + " HTTP/1.1\r\nHost: a\r\n\r\n",
		"10,000 headers":      "GET /_matrix/client/versions HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X-A: b\r\n", 10_000) + "\r\n",
		"a chunk of 2^63":     "POST /_matrix/client/v3/login HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n",
		"a length below zero": "POST /_matrix/client/v3/login HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
		"two lengths":         "POST /_matrix/client/v3/login HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
		"a body of 2^50":      "POST /_matrix/client/v3/login HTTP/1.1\r\nHost: a\r\nContent-Length: 1125899906842624\r\n\r\n{",
	} {
		conn := dial(t, s)
		go func() { _, _ = conn.Write([]byte(head)) }() // the server may close before it has read all
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			if !strings.Contains(err.Error(), "reset") {
				t.Errorf("%s: %v, want an answer", name, err)
			}
			continue // the kernel threw the answer away, because more was on its way to a closed connection
		}
		discard(resp.Body)
		if resp.StatusCode < 400 || resp.StatusCode > 499 {
			t.Errorf("%s: %d, want 400, 413, 414 or 431", name, resp.StatusCode)
		}
		_ = conn.Close()
	}
	if a, err := NewClient(s.URL).Do(context.Background(), "GET", "/_matrix/client/versions", "", nil); err != nil || a.Status != 200 {
		t.Errorf("after that: %v, %v", a, err)
	}
}

// After a restart everybody syncs at once, some with old tokens and some with none. All are answered, and memory stays bounded.
func TestO487_SyncStorm(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := newServer(t, "sqlite")
	if _, err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	storm := NewStorm(Plan{People: 6, Rooms: 4}, s)
	if err := storm.setUp(ctx); err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		p := storm.people[i%len(storm.people)]
		if err := storm.Client.Must(ctx, p, "PUT", roomPath(storm.rooms[i%len(storm.rooms)], fmt.Sprint("/send/m.room.message/s", i)), message("hello"), nil); err != nil {
			t.Fatal(err)
		}
	}
	s.Kill()
	if _, err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	const clients = 300
	var took [clients]time.Duration
	var later atomic.Int64
	var wait sync.WaitGroup
	began := time.Now()
	for i := range clients {
		wait.Go(func() {
			p := storm.people[i%len(storm.people)]
			path := v3 + "/sync?timeout=0"
			if i%3 > 0 {
				path += "&since=" + storm.first[i%len(storm.people)]
			}
			for time.Since(began) < time.Minute {
				a, err := storm.Client.Do(ctx, "GET", path, p.Token, nil)
				switch {
				case err != nil:
					t.Errorf("a sync after the restart: %v", err)
					return
				case a.Status == 200:
					took[i] = time.Since(began)
					return
				case a.Status != 503 && a.Status != 429 || a.Header.Get("Retry-After") == "":
					t.Errorf("a sync after the restart: %v, want 200, or 429 or 503 with Retry-After", a)
					return
				}
				later.Add(1)
				<-time.After(time.Second)
			}
			t.Error("a client was sent away for a minute")
		})
	}
	wait.Wait()
	slices.Sort(took[:])
	rss, err := s.Memory()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d clients: all answered within %v, half of them within %v; %d were told to come later; %d MiB", clients, took[clients-1], took[clients/2], later.Load(), rss>>20)
	if rss > 700<<20 {
		t.Errorf("the server takes %d MiB", rss>>20)
	}
}

// Whoever changes the state of a room as fast as they can takes nothing from others.
func TestO491_HostileRoom(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := newServer(t, "sqlite")
	if _, err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	c := NewClient(s.URL)
	anna, quiet := someone(t, c, "anna")
	mallory, loud := someone(t, c, "mallory")
	var changes, other atomic.Int64
	took := within(t, c, anna, quiet, "q", func(sent *atomic.Int64) {
		began := time.Now()
		var wait sync.WaitGroup
		for lane := range 8 {
			wait.Go(func() {
				for i := 0; time.Since(began) < 5*time.Second || sent.Load() < enough && time.Since(began) < time.Minute; i++ {
					body := map[string]any{"n": i, "users_default": 0, "users": map[string]any{mallory.ID: 100}, "name": fmt.Sprint(lane, i), "topic": fmt.Sprint(i)}
					typ := []string{"m.room.name", "m.room.topic", "org.chaos.x"}[i%3]
					a, err := c.Do(ctx, "PUT", roomPath(loud, fmt.Sprint("/state/", typ, "/k", lane)), mallory.Token, body)
					switch {
					case err != nil:
						t.Error(err)
						return
					case a.Status == 200:
						changes.Add(1)
					case a.Status == 429 || a.Status == 503:
						other.Add(1)
					default:
						t.Errorf("a change of state: %v", a)
						return
					}
				}
			})
		}
		wait.Wait()
	})
	t.Logf("%d changes of state, %d sent away; %d sends elsewhere, half of them within %v, 99 %% within %v", changes.Load(), other.Load(), len(took), at(took, 0.5), at(took, 0.99))
	if len(took) < enough {
		t.Errorf("only %d sends in another room meanwhile", len(took))
	}
	swift(t, took, 2*time.Second)
}

// With a memory limit the server stays near it under more than it can hold at once: large events, large answers, and many who wait.
func TestO499_MemoryCeiling(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s := newServer(t, "sqlite")
	s.Env = []string{"GOMEMLIMIT=180MiB"}
	if _, err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
	storm := NewStorm(Plan{People: 4, Rooms: 2}, s)
	if err := storm.setUp(ctx); err != nil {
		t.Fatal(err)
	}
	var waiting sync.WaitGroup
	wctx, release := context.WithCancel(ctx)
	for i := range 200 {
		p := storm.people[i%len(storm.people)]
		waiting.Go(func() {
			for since := storm.first[i%len(storm.people)]; wctx.Err() == nil; {
				a, err := storm.Client.Do(wctx, "GET", v3+"/sync?timeout=3000&since="+since, p.Token, nil)
				var got syncAnswer
				if err != nil || a.Status != 200 || a.Into(&got) != nil {
					return
				}
				since = got.Next
			}
		})
	}
	var highest int64
	var sending sync.WaitGroup
	for i, p := range storm.people {
		sending.Go(func() {
			for n := range 40 {
				room := storm.rooms[n%len(storm.rooms)]
				a, err := storm.Client.Do(ctx, "PUT", roomPath(room, fmt.Sprintf("/send/m.room.message/b%d-%d", i, n)), p.Token, message(strings.Repeat("x", 50_000)))
				if err != nil || a.Status != 200 && a.Status != 503 && a.Status != 429 && !undecided(a) {
					t.Errorf("a large event: %v, %v", a, err)
					return
				}
				if _, err := storm.Client.Do(ctx, "GET", roomPath(room, "/messages?dir=b&limit=1000"), p.Token, nil); err != nil {
					t.Errorf("history: %v", err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { sending.Wait(); close(done) }()
	for busy := true; busy; {
		select {
		case <-done:
			busy = false
		case <-time.After(50 * time.Millisecond):
		}
		rss, err := s.Memory()
		if err != nil {
			t.Fatalf("the server is gone: %v", err)
		}
		highest = max(highest, rss)
	}
	release()
	waiting.Wait()
	t.Logf("at most %d MiB with a limit of 180 MiB", highest>>20)
	if highest > 400<<20 {
		t.Errorf("the server took %d MiB with a limit of 180 MiB", highest>>20)
	}
	if a, err := storm.Client.Do(ctx, "GET", "/_matrix/client/versions", "", nil); err != nil || a.Status != 200 {
		t.Errorf("after that: %v, %v", a, err)
	}
}
