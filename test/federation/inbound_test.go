package federation_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"testing"
	"time"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/matrix/signing"
	"hansa/storage"
	"hansa/storage/storagetest"
	"hansa/test/hstest"
)

// inbound is a hundred servers that send into fifty rooms of ours, each into several of them, and people of ours who send into these rooms.
type inbound struct {
	b      testing.TB
	s      *hstest.Server
	peers  []*hstest.Outsider
	guests [][]*guest // of each peer, one a room
	locals []*hstest.User
	rooms  []string
	load   *generator
	next   int // of transactions
	chance *rand.Rand
}

const (
	inboundServers = 100
	inboundRooms   = 50
	// inboundEach is in how many of the rooms each server is.
	inboundEach = 4
	// inboundPDUs is how many events a transaction has, of inboundState events one is a change of state.
	inboundPDUs, inboundState = 5, 19
	// inboundRate is how many events a second come where the rate is given, localRate how many our own people send meanwhile.
	inboundRate, localRate = 1000, 200
	localSenders           = 50
)

func newInbound(b testing.TB, database string) *inbound {
	f := hstest.NewFederation(b, 1, func(_ int, o *hstest.Options) { o.Database = database })
	x := &inbound{b: b, s: f.Servers[0], chance: rand.New(rand.NewPCG(1, 2))}
	for i := range localSenders {
		x.locals = append(x.locals, x.s.User(fmt.Sprint("anna", i)))
	}
	for i := range inboundRooms {
		x.rooms = append(x.rooms, x.locals[i%localSenders].CreateRoom(map[string]any{"preset": "public_chat", "room_version": "11"}))
	}
	x.peers, x.load = elsewhere(b, f, inboundServers)
	for i, o := range x.peers {
		var in []*guest
		for k := range inboundEach {
			in = append(in, enter(b, o, "fred", x.rooms[(i+k*inboundRooms/inboundEach)%inboundRooms], "11"))
		}
		x.guests = append(x.guests, in)
	}
	// Connections are there, and keys are known.
	x.load.run(x.transactions(2*inboundServers, 0), func() {})
	return x
}

// due is when the request of a number is due: one in each span, at a time that has nothing to do with when others are due.
func (x *inbound) due(i int, span time.Duration) time.Duration {
	return time.Second + time.Duration(i)*span + time.Duration(x.chance.Int64N(int64(span)))
}

// transactions makes n transactions of all servers by turns; due at a rate of events a second, or with rate 0 each as soon as the one before
// it was answered.
func (x *inbound) transactions(n, rate int) []shot {
	var list []shot
	for i := range n {
		x.next++
		peer := x.next % inboundServers
		o := x.peers[peer]
		var pdus []json.RawMessage
		for k := range inboundPDUs {
			g := x.guests[peer][(x.next/inboundServers+k/3)%inboundEach]
			serial := x.next*inboundPDUs + k
			if serial%inboundState == 0 {
				pdus = append(pdus, event.Federation(g.rename(fmt.Sprint("Fred ", serial))))
			} else {
				pdus = append(pdus, event.Federation(g.message(fmt.Sprint("message ", serial))))
			}
		}
		body, err := json.Marshal(map[string]any{"origin": o.Name, "origin_server_ts": time.Now().UnixMilli(), "pdus": pdus, "edus": []any{}})
		if err != nil {
			x.b.Fatal(err)
		}
		s := shot{Lane: string(o.Name), Kind: "transaction", Method: "PUT", Body: body, URL: fmt.Sprint("https://one.example/_matrix/federation/v1/send/t", x.next)}
		if s.Header, err = signing.SignRequest(o.Key, s.Method, fmt.Sprint("/_matrix/federation/v1/send/t", x.next), o.Name, "one.example", body); err != nil {
			x.b.Fatal(err)
		}
		if rate > 0 {
			s.At = x.due(i, inboundPDUs*time.Second/time.Duration(rate))
		}
		list = append(list, s)
	}
	return list
}

// sends makes n messages of our own people, due at a rate.
func (x *inbound) sends(n, rate int) []shot {
	var list []shot
	for i := range n {
		x.next++
		u := x.locals[i%localSenders]
		room := x.rooms[i%inboundRooms]
		list = append(list, shot{Lane: string(u.ID), Kind: "send", Method: "PUT", Header: "Bearer " + u.Token, Body: []byte(`{"msgtype":"m.text","body":"local"}`),
			At:  x.due(i, time.Second/time.Duration(rate)),
			URL: fmt.Sprint(x.s.URL, "/_matrix/client/v3/rooms/", hstest.Esc(room), "/send/m.room.message/l", x.next)})
	}
	return list
}

// rename makes the guest change their name.
func (g *guest) rename(name string) *event.Event {
	g.t.Helper()
	key := string(g.id)
	content, err := json.Marshal(map[string]any{"membership": "join", "displayname": name})
	if err != nil {
		g.t.Fatal(err)
	}
	auth := append(append(g.auth[:0:0], g.rules...), g.auth[0])
	g.last = g.build(event.Draft{Type: "m.room.member", StateKey: &key, Content: content, Depth: g.last.Depth + 1, AuthEvents: auth, PrevEvents: []matrix.EventID{g.last.ID}})
	g.auth = append([]matrix.EventID{g.last.ID}, g.auth[1:]...)
	return g.last
}

// measure runs a load and reports what it took, for each of n.
func (x *inbound) measure(b *testing.B, list []shot, n int, unit string) outcome {
	var stats storage.Stats
	var mem, after runtime.MemStats
	var cpu time.Duration
	stop := func() {}
	b.ResetTimer()
	o := x.load.run(list, func() {
		stop = profile(b)
		stats = x.s.DB.Stats()
		runtime.ReadMemStats(&mem)
		cpu = spentHere()
		if b.N > 1 && os.Getenv(besideEnv) != "" {
			_ = os.NewFile(3, "begun").Close() // who waits for the load goes on
		}
		b.StartTimer()
	})
	b.StopTimer()
	cpu = spentHere() - cpu
	runtime.ReadMemStats(&after)
	end := x.s.DB.Stats()
	stop()
	each := func(v int64) float64 { return float64(v) / float64(n) }
	b.ReportMetric(each(cpu.Microseconds()), "cpu-us/"+unit)
	b.ReportMetric(each(o.CPU.Microseconds()), "load-cpu-us/"+unit)
	b.ReportMetric(each(int64(after.Mallocs-mem.Mallocs)), "allocs/"+unit)
	b.ReportMetric(each(end.Reads-stats.Reads), "reads/"+unit)
	b.ReportMetric(each(end.Statements-stats.Statements), "statements/"+unit)
	b.ReportMetric(each(end.Commits-stats.Commits), "commits/"+unit)
	for kind, took := range o.Took {
		b.ReportMetric(float64(quantile(took, 0.5).Microseconds())/1000, kind+"-p50-ms")
		b.ReportMetric(float64(quantile(took, 0.99).Microseconds())/1000, kind+"-p99-ms")
	}
	return o
}

// profile writes a CPU profile of what follows into a directory that HANSA_TEST_PROFILES names.
func profile(b *testing.B) (stop func()) {
	dir := os.Getenv("HANSA_TEST_PROFILES")
	if dir == "" {
		return func() {}
	}
	f, err := os.Create(filepath.Join(dir, filepath.Base(filepath.Dir(b.Name()))+"-"+filepath.Base(b.Name())+".pprof"))
	if err != nil {
		b.Fatal(err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		b.Fatal(err)
	}
	return func() { pprof.StopCPUProfile(); _ = f.Close() }
}

// besideEnv is set for a process that takes a load beside another one. It closes its file 3 when the load begins.
const besideEnv = "HANSA_TEST_BESIDE"

// beside has another process take n events at the given rate, and returns when they begin to come. done waits for its end.
func beside(b *testing.B, database string, n int) (done func()) {
	began, begun, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^$", "-test.bench", "^BenchmarkInbound$/^"+database+"$/^inbound$", "-test.benchtime", fmt.Sprint(n, "x"))
	cmd.Env, cmd.ExtraFiles = append(os.Environ(), besideEnv+"=1"), []*os.File{begun}
	out, err := os.CreateTemp(b.TempDir(), "")
	if err != nil {
		b.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	_ = begun.Close() // the other process has it
	if _, err := io.ReadAll(began); err != nil {
		b.Fatal(err)
	}
	return func() {
		if err := cmd.Wait(); err != nil {
			text, _ := os.ReadFile(out.Name()) // the error says enough
			b.Errorf("the other process: %v: %s", err, text)
		}
	}
}

// BenchmarkInbound has a hundred servers send into fifty rooms, over TLS and with signed requests; one iteration is one event. local is what
// the sends of our own people cost alone, 200 a second; beside is the same while another process on this machine, which has nothing to do with
// the one that is measured, takes 1,000 events a second; offered is when that process takes them itself. So offered against local is what
// people notice on a machine as small as this, and offered against beside is how much of that is because they wait for one another inside of one
// server. inbound is these events alone; most is as many events as go, and alongside is that and the sends. CPU and allocations are those of the
// server alone.
func BenchmarkInbound(b *testing.B) {
	for _, db := range storagetest.Databases() {
		b.Run(db, func(b *testing.B) {
			x := newInbound(b, db)
			b.Run("local", func(b *testing.B) {
				n := max(1, b.N*localRate/inboundRate)
				x.measure(b, x.sends(n, localRate), n, "send")
			})
			b.Run("beside", func(b *testing.B) {
				n, done := max(1, b.N*localRate/inboundRate), func() {}
				sends := x.sends(n, localRate)
				if b.N > 1 {
					done = beside(b, db, b.N+3*inboundRate) // it begins before the sends and ends after them
				}
				x.measure(b, sends, n, "send")
				done()
			})
			b.Run("inbound", func(b *testing.B) {
				t := max(1, b.N/inboundPDUs)
				x.measure(b, x.transactions(t, inboundRate), t*inboundPDUs, "PDU")
			})
			b.Run("offered", func(b *testing.B) {
				t := max(1, b.N/inboundPDUs)
				n := max(1, b.N*localRate/inboundRate)
				x.measure(b, append(x.transactions(t, inboundRate), x.sends(n, localRate)...), t*inboundPDUs, "PDU")
			})
			b.Run("most", func(b *testing.B) {
				t := max(1, b.N/inboundPDUs)
				o := x.measure(b, x.transactions(t, 0), t*inboundPDUs, "PDU")
				b.ReportMetric(float64(t*inboundPDUs)/o.Elapsed.Seconds(), "PDU/s")
			})
			b.Run("alongside", func(b *testing.B) {
				t := max(1, b.N/inboundPDUs)
				n := max(1, b.N*localRate/inboundRate/4)
				o := x.measure(b, append(x.transactions(t, 0), x.sends(n, localRate)...), t*inboundPDUs, "PDU")
				b.ReportMetric(float64(t*inboundPDUs)/o.Elapsed.Seconds(), "PDU/s")
			})
		})
	}
}
