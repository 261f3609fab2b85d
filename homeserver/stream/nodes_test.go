package stream_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"hansa/homeserver/stream"
	"hansa/storage"
	"hansa/storage/storagetest"
)

// startNATS starts a server of the real thing in this process, and returns its host and port.
func startNATS(t *testing.T, change func(*server.Options)) (*server.Server, string) {
	t.Helper()
	o := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true}
	if change != nil {
		change(o)
	}
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("NATS does not start")
	}
	return s, s.Addr().String()
}

// node is one process as far as this package goes.
type node struct {
	*stream.Stream
	db      *storage.DB
	metrics *prometheus.Registry
	stop    func() // of the node with all that go has started
	ctx     context.Context
	wg      *sync.WaitGroup
}

func (n *node) start(fn func(ctx context.Context)) { n.wg.Go(func() { fn(n.ctx) }) }

func openNode(t *testing.T, o stream.Options) *node {
	t.Helper()
	o.Log = storagetest.Quiet()
	n := &node{metrics: prometheus.NewRegistry(), wg: &sync.WaitGroup{}}
	o.Registerer = n.metrics
	var err error
	if n.Stream, n.db, err = stream.Open(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.ctx = ctx
	n.wg.Go(func() {
		if err := n.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	n.stop = sync.OnceFunc(func() {
		cancel()
		n.wg.Wait()
		if err := n.db.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

func (n *node) say(t *testing.T, ref string) {
	t.Helper()
	if err := n.db.Update(context.Background(), func(tx *storage.Tx) error { return tx.Announce("n", ref) }); err != nil {
		t.Fatal(err)
	}
}

// value reads a metric, summed over its labels.
func (n *node) value(t *testing.T, name string) (sum float64) {
	t.Helper()
	families, err := n.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, longest time.Duration, fn func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for tick := time.NewTicker(2 * time.Millisecond); ; <-tick.C {
		if fn() {
			return time.Since(began)
		}
		if time.Since(began) > longest {
			t.Fatalf("in vain for %v: %s", longest, what)
		}
	}
}

func connected(t *testing.T, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		eventually(t, "connected to NATS", time.Minute, func() bool { return n.value(t, "hansa_stream_nats_connected_bool") == 1 })
	}
}

// With NATS a node hears of another one's writing at once, without asking the database in between.
func TestNATS_WakesOtherNodes(t *testing.T) {
	t.Parallel()
	_, addr := startNATS(t, func(o *server.Options) { o.Username, o.Password = "hansa", "a#secret" })
	o := stream.Options{Storage: storage.Options{URL: storagetest.URL(t, "postgres")}, NATS: "nats://hansa:a%23secret@" + addr, Poll: time.Hour}
	a, b := openNode(t, o), openNode(t, o)
	connected(t, a, b)
	for i := range 20 {
		at := b.Position()
		a.say(t, fmt.Sprint(i))
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		if err := b.Wait(ctx, at); err != nil {
			t.Fatalf("the other node does not hear of write %d: %v", i, err)
		}
		cancel()
	}
}

// NATS stops and comes back; nothing is lost meanwhile, and what happens is seen within a second.
func TestD466_NATSStopped(t *testing.T) {
	t.Parallel()
	s, addr := startNATS(t, nil)
	o := stream.Options{Storage: storage.Options{URL: storagetest.URL(t, "postgres")}, NATS: "nats://" + addr}
	a, b := openNode(t, o), openNode(t, o)
	connected(t, a, b)
	s.Shutdown()
	s.WaitForShutdown()
	eventually(t, "the metric shows it", time.Minute, func() bool { return b.value(t, "hansa_stream_nats_connected_bool") == 0 })
	var took []time.Duration
	for i := range 11 {
		a.say(t, fmt.Sprint(i))
		want := a.Position()
		took = append(took, eventually(t, "the other node sees it", time.Minute, func() bool { return b.Position() >= want }))
		pass(time.Duration(i) * 30 * time.Millisecond)
	}
	if slices.Sort(took); took[2] > time.Second { // the machine may be busy with something else most of the time
		t.Errorf("writes were seen after %v", took)
	}
	port := addr[strings.LastIndex(addr, ":")+1:]
	startNATS(t, func(o *server.Options) { _, _ = fmt.Sscan(port, &o.Port) })
	connected(t, a, b)
	at := b.Position()
	a.say(t, "again")
	if err := b.Wait(context.Background(), at); err != nil {
		t.Fatal(err)
	}
}

// pass lets real time pass.
func pass(d time.Duration) { <-time.After(d) }

// Wake-ups that are lost, doubled, out of order, made up or absurd change nothing but when a node looks.
func TestD467_D469_NATSIsNotBelieved(t *testing.T) {
	t.Parallel()
	_, addr := startNATS(t, func(o *server.Options) { o.Authorization = "token" })
	o := stream.Options{Storage: storage.Options{URL: storagetest.URL(t, "postgres")}, NATS: "nats://token@" + addr, Poll: 100 * time.Millisecond}
	began := time.Now()
	a, b := openNode(t, o), openNode(t, o)
	connected(t, a, b)
	if c, err := nats.Connect("nats://" + addr); err == nil {
		c.Close()
		t.Error("NATS let in a client without a token: this test shows nothing")
	}
	spy, err := nats.Connect("nats://token@" + addr)
	if err != nil {
		t.Fatal(err)
	}
	defer spy.Close()
	var mu sync.Mutex
	var seen []*nats.Msg
	if _, err := spy.Subscribe("hansa.>", func(m *nats.Msg) { mu.Lock(); defer mu.Unlock(); seen = append(seen, m) }); err != nil {
		t.Fatal(err)
	}
	if err := spy.Flush(); err != nil {
		t.Fatal(err)
	}
	var heard []string
	b.Hear("typing", func(m []byte) { mu.Lock(); defer mu.Unlock(); heard = append(heard, string(m)) })
	a.Tell("typing", []byte("anna in !secret"))
	a.say(t, "one")
	eventually(t, "told", time.Minute, func() bool { mu.Lock(); defer mu.Unlock(); return len(heard) == 1 && len(seen) >= 2 })
	mu.Lock()
	copies := append([]*nats.Msg(nil), seen...)
	mu.Unlock()
	var prefix string
	for _, m := range copies {
		if strings.Contains(string(m.Data), "anna") || strings.Contains(string(m.Data), "secret") {
			t.Errorf("what nodes tell each other can be read on %s: %q", m.Subject, m.Data)
		}
		prefix, _, _ = strings.Cut(m.Subject[len("hansa."):], ".")
	}
	send := func(subject, data string) {
		if err := spy.Publish("hansa."+prefix+"."+subject, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range copies { // again
		send(strings.TrimPrefix(m.Subject, "hansa."+prefix+"."), string(m.Data))
		send("relay.presence", string(m.Data))
	}
	for range 5000 {
		for _, pos := range []string{"9223372036854775807", "-1", "1e9", "x", "", strings.Repeat("9", 1000), `{"type":"m.room.message"}`} {
			send("pos", pos)
		}
		send("lease", "x")
		send("relay.typing", "bert in !secret")
	}
	if err := spy.Flush(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first one is here", time.Minute, func() bool { return b.Position() == 1 })
	at := b.Position()
	a.say(t, "two")
	eventually(t, "the other node sees what is true", time.Minute, func() bool { return b.Position() == at+1 })
	es, upto, err := b.Read(context.Background(), 0)
	if err != nil || upto != at+1 || len(es) != 2 || es[0].Ref != "one" || es[1].Ref != "two" {
		t.Errorf("the log is %+v up to %d, %v", es, upto, err)
	}
	eventually(t, "what nobody of the cell has sent is refused", time.Minute, func() bool { return b.value(t, "hansa_stream_nats_refused_total") >= 5000 })
	mu.Lock()
	defer mu.Unlock()
	if len(heard) != 1 || heard[0] != "anna in !secret" {
		t.Errorf("heard %q", heard)
	}
	if n := b.value(t, "hansa_stream_looks_total"); n > 500+20*time.Since(began).Seconds() {
		t.Errorf("the database was asked %v times in %v", n, time.Since(began))
	}
}

// Two deployments on one NATS do not hear of each other.
func TestNATS_CellsDoNotMix(t *testing.T) {
	t.Parallel()
	_, addr := startNATS(t, nil)
	at := func(url string) *node {
		return openNode(t, stream.Options{Storage: storage.Options{URL: url}, NATS: "nats://" + addr, Poll: time.Hour})
	}
	one, two := storagetest.URL(t, "postgres"), storagetest.URL(t, "postgres")
	a, b, other := at(one), at(one), at(two)
	connected(t, a, b, other)
	told := make(chan string, 10)
	b.Hear("x", func(m []byte) { told <- "b" })
	other.Hear("x", func(m []byte) { told <- "other" })
	a.say(t, "1")
	if err := b.Wait(context.Background(), 0); err != nil {
		t.Fatal(err)
	}
	a.Tell("x", []byte("hello"))
	if who := <-told; who != "b" {
		t.Errorf("told to %s", who)
	}
	if n := other.value(t, "hansa_stream_nats_messages_total"); n != 0 {
		t.Errorf("the other deployment has got %v messages", n)
	}
}

// The connection to NATS is encrypted and checked where the URL says so.
func TestNATS_TLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nats"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	_, addr := startNATS(t, func(o *server.Options) {
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
		o.TLS, o.TLSTimeout = true, 5
	})
	url := storagetest.URL(t, "postgres")
	trusting := openNode(t, stream.Options{Storage: storage.Options{URL: url}, NATS: "tls://" + addr + "?ca=" + ca})
	other := openNode(t, stream.Options{Storage: storage.Options{URL: url}, NATS: "tls://" + addr})
	connected(t, trusting)
	pass(300 * time.Millisecond)
	if other.value(t, "hansa_stream_nats_connected_bool") != 0 {
		t.Error("a certificate of nobody was trusted")
	}
}

// ledger notes which node handled what.
type ledger struct {
	mu   sync.Mutex
	refs []string
	by   []string
}

func (l *ledger) handle(who string) func(ctx context.Context, es []storage.Entry, _ int64) error {
	return func(ctx context.Context, es []storage.Entry, _ int64) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, e := range es {
			l.refs, l.by = append(l.refs, e.Ref), append(l.by, who)
		}
		return nil
	}
}

func (l *ledger) has(n int) func() bool {
	return func() bool { l.mu.Lock(); defer l.mu.Unlock(); return len(l.refs) >= n }
}

func (l *ledger) last() string { l.mu.Lock(); defer l.mu.Unlock(); return l.by[len(l.by)-1] }

// Of three nodes one runs a follower; when it stops, another goes on at once where it was.
func TestFollow_OneNodeAtATime(t *testing.T) {
	t.Parallel()
	for _, wakes := range []string{"with NATS", "without"} {
		t.Run(wakes, func(t *testing.T) {
			t.Parallel()
			o := stream.Options{Storage: storage.Options{URL: storagetest.URL(t, "postgres")}, LeaseTime: 30 * time.Second}
			if wakes == "with NATS" {
				_, addr := startNATS(t, nil)
				o.NATS = "nats://" + addr
			}
			l := &ledger{}
			nodes := map[string]*node{}
			for _, who := range []string{"a", "b", "c"} {
				n := openNode(t, o)
				nodes[who] = n
				n.start(func(ctx context.Context) {
					if err := n.Follow(ctx, stream.Follower{Name: "test", Handle: l.handle(who)}); err != nil {
						t.Error(err)
					}
				})
				if who == "a" { // the first one holds it
					eventually(t, "a lease", time.Minute, func() bool { return n.value(t, "hansa_stream_leases_held_count") == 1 })
				}
			}
			writer := openNode(t, o)
			for i := range 10 {
				writer.say(t, fmt.Sprint(i))
			}
			eventually(t, "ten entries handled", time.Minute, l.has(10))
			if l.last() != "a" {
				t.Errorf("%s handles while a holds the lease", l.last())
			}
			nodes["a"].stop()
			writer.say(t, "10")
			eventually(t, "another node goes on before the lease would have ended", 25*time.Second, l.has(11))
			l.mu.Lock()
			defer l.mu.Unlock()
			for i, ref := range l.refs {
				if ref != fmt.Sprint(i) {
					t.Fatalf("handled %v: each entry once, in order, is wanted", l.refs)
				}
			}
		})
	}
}

// A node that is cut off in the middle of its work loses the lease: its work is ended, and what it still writes is refused.
func TestD470_FormerHolderIsFenced(t *testing.T) {
	t.Parallel()
	const ttl = 700 * time.Millisecond
	url := storagetest.URL(t, "postgres")
	o := stream.Options{Storage: storage.Options{URL: url}, LeaseTime: ttl}
	// The first node's Run does not run: it renews nothing, as if it were paused.
	paused, db, err := stream.Open(context.Background(), stream.Options{Storage: storage.Options{URL: url}, LeaseTime: ttl, Log: storagetest.Quiet()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	began, refused := make(chan struct{}), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		_ = paused.Hold(ctx, "test", func(ctx context.Context, l *stream.Lease) error {
			close(began)
			<-ctx.Done() // ended because the lease is over
			var pos int64
			for pos == 0 { // until the other node has done something
				if err := db.Read(context.Background(), func(tx *storage.Tx) (err error) { pos, err = tx.LoadCursor("test"); return err }); err != nil {
					t.Error(err)
				}
			}
			refused <- db.Update(context.Background(), func(tx *storage.Tx) error {
				if err := l.Fence(tx); err != nil {
					return err
				}
				return tx.SetCursor("test", 1000)
			})
			cancel()
			return nil
		})
	})
	<-began
	n := openNode(t, o)
	l := &ledger{}
	n.start(func(ctx context.Context) {
		_ = n.Follow(ctx, stream.Follower{Name: "test", Handle: l.handle("n")})
	})
	n.say(t, "x")
	eventually(t, "the other node takes over", time.Minute, l.has(1))
	if err := <-refused; !errors.Is(err, storage.ErrNotHeld) {
		t.Errorf("the write of the former holder: %v", err)
	}
	var pos int64
	if err := n.db.Read(context.Background(), func(tx *storage.Tx) (err error) { pos, err = tx.LoadCursor("test"); return err }); err != nil || pos != 1 {
		t.Errorf("the cursor is at %d, %v", pos, err)
	}
	if n.value(t, "hansa_stream_leases_taken_total") < 1 { // more where the machine is so busy that the node loses the lease in between
		t.Error("the metric does not count the take")
	}
}
