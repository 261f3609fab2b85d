package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// startNodes prepares nodes of one deployment on a PostgreSQL, and starts all but the first.
func startNodes(t *testing.T, n int, database, wakes string) []*Server {
	t.Helper()
	first := newServer(t, database)
	first.Env = []string{"HANSA_NATS=" + wakes}
	out := []*Server{first}
	for len(out) < n {
		s, err := first.Sibling(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		attend(t, s, "another node")
		if _, err := s.Start(context.Background()); err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

// held is how many leases nodes hold.
func held(ctx context.Context, nodes ...*Server) (sum float64) {
	for _, s := range nodes {
		n, _ := s.Metric(ctx, "hansa_stream_leases_held_count") // 0 of a node that does not answer
		sum += n
	}
	return sum
}

// settled is how many leases nodes hold as soon as that has not changed for a while: a lease that goes from one to another meanwhile is counted
// nowhere, or twice.
func settled(ctx context.Context, nodes ...*Server) float64 {
	sum := held(ctx, nodes...)
	for same, tries := 0, 0; same < 10 && tries < 200 && ctx.Err() == nil; tries++ {
		<-time.After(30 * time.Millisecond)
		if now := held(ctx, nodes...); now != sum {
			sum, same = now, 0
		} else {
			same++
		}
	}
	return sum
}

// without is nodes but one.
func without(nodes []*Server, dead *Server) []*Server {
	var out []*Server
	for _, s := range nodes {
		if s != dead {
			out = append(out, s)
		}
	}
	return out
}

// awaitLeases waits until living nodes hold all leases again.
func awaitLeases(ctx context.Context, living []*Server, want float64) (time.Duration, error) {
	began := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for time.Since(began) < bar(10*time.Second) {
		if held(ctx, living...) >= want {
			return time.Since(began), nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return 0, fmt.Errorf("after %v the living nodes hold %v of %v leases", bar(10*time.Second), held(ctx, living...), want)
}

// goesOn tells how long it takes until a request succeeds on some nodes.
func goesOn(ctx context.Context, nodes []*Server) (time.Duration, error) {
	began := time.Now()
	h := &http.Client{Timeout: bar(time.Second)}
	for _, s := range nodes {
		for !answers(ctx, h, s.Admin+"/readyz") {
			if time.Since(began) > bar(10*time.Second) {
				return 0, fmt.Errorf("%s is not ready", s.Admin)
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
	}
	return time.Since(began), nil
}

// One of three nodes is killed under load, again and again: the clients go on on the others, which take over what it did for all.
func TestD471_NodeLoss(t *testing.T) {
	t.Parallel()
	_, wakes := startNATS(t, server.RANDOM_PORT)
	nodes := startNodes(t, 3, "postgres", wakes)
	kills := int(number(t, "HANSA_CHAOS_KILLS", 20))
	if kills > 50 {
		kills = 50
	}
	var slowest, slowestTake time.Duration
	n := 0
	weather(t, Plan{Seed: seed(t), Strikes: kills, Nodes: nodes[1:], Strike: func(ctx context.Context, rng *rand.Rand) error {
		total := held(ctx, nodes...)
		dead := nodes[rng.IntN(len(nodes))]
		dead.Kill()
		living := without(nodes, dead)
		d, err := goesOn(ctx, living)
		if err != nil {
			return err
		}
		slowest = max(slowest, d)
		if n++; n%5 == 1 {
			if d, err = awaitLeases(ctx, living, total); err != nil {
				return err
			}
			slowestTake = max(slowestTake, d)
		}
		_, err = dead.Start(ctx)
		return err
	}}, nodes[0], 2*time.Minute+time.Duration(kills)*8*time.Second)
	t.Logf("the others take writes %v after a kill, and have the leases after %v, at the latest", slowest.Round(time.Millisecond), slowestTake.Round(time.Millisecond))
	if slowest > bar(5*time.Second) || slowestTake > bar(5*time.Second) {
		t.Errorf("want both within 5 s")
	}
}

// A node that is paused, wherever it is at that moment, loses its leases and holds nobody up; when it goes on, it writes nothing behind the
// back of those who took over.
func TestD470_PausedNode(t *testing.T) {
	t.Parallel()
	_, wakes := startNATS(t, server.RANDOM_PORT)
	nodes := startNodes(t, 2, "postgres", wakes)
	pauses := 2
	if number(t, "HANSA_CHAOS_KILLS", 0) > 0 {
		pauses = 10
	}
	var slowest, slowestTake time.Duration
	weather(t, Plan{Seed: seed(t), Strikes: pauses, Nodes: nodes[1:], Strike: func(ctx context.Context, _ *rand.Rand) error {
		total := settled(ctx, nodes...)
		paused := nodes[0] // who holds most
		if held(ctx, nodes[1]) > held(ctx, nodes[0]) {
			paused = nodes[1]
		}
		had := held(ctx, paused)
		before, err := paused.Metric(ctx, "hansa_stream_leases_lost_total")
		if err != nil {
			return err
		}
		if err := paused.Pause(); err != nil {
			return err
		}
		living := without(nodes, paused)
		d, err := goesOn(ctx, living)
		if err == nil {
			slowest = max(slowest, d)
			d, err = awaitLeases(ctx, living, total)
			slowestTake = max(slowestTake, d)
		}
		if cerr := paused.Continue(); cerr != nil || err != nil {
			return fmt.Errorf("%w, %w", err, cerr)
		}
		if err := paused.AwaitReady(ctx); err != nil {
			return err
		}
		// It finds out when it goes on, and gives back those leases whose work fails before that. They go from one to the other while they are counted.
		for began := time.Now(); ; {
			lost, err := paused.Metric(ctx, "hansa_stream_leases_lost_total")
			if err == nil && had > 0 && lost == before {
				err = fmt.Errorf("the node that was paused says that it lost no lease; it had %v", had)
			}
			if now := held(ctx, nodes...); err == nil && now > total {
				err = fmt.Errorf("%v leases are held twice", now-total)
			}
			if err == nil || time.Since(began) > bar(2*time.Second) || ctx.Err() != nil {
				return err
			}
			<-time.After(50 * time.Millisecond)
		}
	}}, nodes[0], 4*time.Minute)
	t.Logf("the other takes writes %v after a pause begins, and has the leases after %v, at the latest", slowest.Round(time.Millisecond), slowestTake.Round(time.Millisecond))
	if slowest > bar(5*time.Second) || slowestTake > bar(5*time.Second) {
		t.Errorf("want both within 5 s")
	}
}

// courier measures how long something takes from one node to a reader on another.
func courier(ctx context.Context, from, to *Server) (time.Duration, error) {
	a, b := NewClient(from.URL), NewClient(to.URL)
	var at syncAnswer
	who, err := b.Register(ctx, fmt.Sprint("courier", rand.Uint64())) // nobody else reads with this device
	if err != nil {
		return 0, err
	}
	if err := b.Must(ctx, who, "GET", v3+"/sync?timeout=0", nil, &at); err != nil {
		return 0, err
	}
	mark := fmt.Sprint("courier-", rand.Uint64())
	if err := a.Must(ctx, who, "PUT", v3+"/user/"+esc(who.ID)+"/account_data/org.chaos.courier", map[string]any{"mark": mark}, nil); err != nil {
		return 0, err
	}
	began := time.Now()
	for time.Since(began) < 20*time.Second {
		ans, err := b.Decided(ctx, "GET", fmt.Sprintf("%s/sync?timeout=5000&since=%s", v3, at.Next), who.Token, nil)
		if err != nil {
			return 0, err
		}
		if strings.Contains(string(ans.Raw), mark) {
			return time.Since(began), nil
		}
		if err := ans.Into(&at); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("something did not arrive in 20 s")
}

// NATS is stopped under load, and the database crashes: nothing is lost, what is written on one node arrives on the other within a second
// while there is no NATS, and writes go on within three seconds after the database is back.
func TestD466_D453_NATSAndPostgresStopped(t *testing.T) {
	t.Parallel()
	bus, wakes := startNATS(t, server.RANDOM_PORT)
	port := bus.Addr().String()
	var portNumber int
	if _, err := fmt.Sscan(port[strings.LastIndex(port, ":")+1:], &portNumber); err != nil {
		t.Fatal(err)
	}
	c := newCluster(t)
	nodes := startNodes(t, 2, c.url, wakes)
	down := 4 * time.Second
	if number(t, "HANSA_CHAOS_KILLS", 0) > 0 {
		down = time.Minute
	}
	var slow, delivery time.Duration
	s := NewStorm(Plan{Seed: seed(t), Strikes: 2, Nodes: nodes[1:], Pause: 25 * time.Millisecond}, nodes[0])
	s.Strike = func(ctx context.Context, rng *rand.Rand) error {
		bus.Shutdown()
		bus.WaitForShutdown()
		for began := time.Now(); time.Since(began) < down; {
			i := rng.IntN(2)
			d, err := courier(ctx, nodes[i], nodes[1-i])
			if err != nil {
				return err
			}
			delivery = max(delivery, d)
		}
		bus, _ = startNATS(t, portNumber)
		if _, err := setup("crash", c.dir); err != nil {
			return err
		}
		d, err := goesOn(ctx, nodes)
		slow = max(slow, d)
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	r, err := s.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(r)
	for _, what := range r.Bad() {
		t.Error(what)
	}
	t.Logf("without NATS a message takes %v at the latest; writes go on %v after the database is back", delivery.Round(time.Millisecond), slow.Round(time.Millisecond))
	if delivery > bar(time.Second) || slow > bar(3*time.Second) {
		t.Error("want 1 s and 3 s")
	}
}

// balancer is a load balancer as operators have them: it asks each node for its readiness and sends requests to those who are ready, by turns.
type balancer struct {
	nodes []*Server
	up    []atomic.Bool
	turn  atomic.Uint64
	to    []*httputil.ReverseProxy
}

func newBalancer(t *testing.T, nodes []*Server) (*balancer, string) {
	b := &balancer{nodes: nodes, up: make([]atomic.Bool, len(nodes))}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	for i, s := range nodes {
		u, err := url.Parse(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		p := httputil.NewSingleHostReverseProxy(u)
		p.Transport = &http.Transport{MaxIdleConnsPerHost: 256}
		b.to = append(b.to, p)
		go b.check(ctx, i)
	}
	h := httptest.NewServer(b)
	t.Cleanup(h.Close)
	return b, h.URL
}

func (b *balancer) check(ctx context.Context, i int) {
	h := &http.Client{Timeout: bar(time.Second)}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		b.up[i].Store(answers(ctx, h, b.nodes[i].Admin+"/readyz"))
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// ServeHTTP implements http.Handler.
func (b *balancer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for range b.nodes {
		if i := int(b.turn.Add(1) % uint64(len(b.nodes))); b.up[i].Load() {
			b.to[i].ServeHTTP(w, r)
			return
		}
	}
	http.Error(w, "no node is ready", http.StatusBadGateway)
}

// Three nodes are stopped and started one after the other under load: no request fails, and each has stopped within 30 seconds.
func TestO506_RollingRestart(t *testing.T) {
	t.Parallel()
	_, wakes := startNATS(t, server.RANDOM_PORT)
	nodes := startNodes(t, 3, "postgres", wakes)
	b, front := newBalancer(t, nodes)
	var longest time.Duration
	next := 0
	r := weather(t, Plan{Seed: seed(t), Strikes: 3, Nodes: nodes[1:], Front: front, Strike: func(ctx context.Context, _ *rand.Rand) error {
		i := next % len(nodes)
		next++
		began := time.Now()
		nodes[i].Stop()
		longest = max(longest, time.Since(began))
		if _, err := nodes[i].Start(ctx); err != nil {
			return err
		}
		for !b.up[i].Load() {
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}}, nodes[0], 3*time.Minute)
	t.Logf("stopping takes %v at the longest", longest.Round(time.Millisecond))
	if r.Failed > 0 {
		t.Errorf("%d requests had no answer or 5xx, such as\n%s", r.Failed, strings.Join(r.Failures, "\n"))
	}
	if longest > 30*time.Second {
		t.Errorf("a node takes %v to stop", longest)
	}
}
