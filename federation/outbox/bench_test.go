package outbox

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"hansa/federation"
	"hansa/matrix"
)

// BenchmarkDeliver is how long an event takes from its commit to 80 servers that answer within 5 ms, while 20 others do so too or not: 10
// are dead and 10 take 3 seconds. One message follows another every 20 ms.
func BenchmarkDeliver(b *testing.B) {
	for _, database := range []string{"sqlite", "postgres"} {
		for _, bad := range []int{0, 20} {
			b.Run(fmt.Sprintf("%s/bad=%d", database, bad), func(b *testing.B) { deliver(b, database, bad) })
		}
	}
}

func deliver(b *testing.B, database string, bad int) {
	w := newWorld(b, database)
	all := users(100)
	r := w.newRoom("a", all...)
	var mu sync.Mutex
	sent := map[string]time.Time{}
	var took []time.Duration
	wait := func(ctx context.Context, d time.Duration) error {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for i, u := range all {
		w.peers.on(u.Server(), func(ctx context.Context, _ string, t federation.Transaction) error {
			switch {
			case i < bad/2:
				return wait(ctx, time.Hour)
			case i < bad:
				return wait(ctx, 3*time.Second)
			case i < 20:
				return wait(ctx, 5*time.Millisecond)
			}
			now := time.Now()
			mu.Lock()
			for _, n := range names(t) {
				took = append(took, now.Sub(sent[n]))
			}
			mu.Unlock()
			return wait(ctx, 5*time.Millisecond)
		})
	}
	standardTuning := standard()
	w.start(func(c *tuning) { *c = standardTuning })
	before, events := w.db.Stats(), 0
	var start, end syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &start); err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		events++
		mu.Lock()
		sent[strconv.Itoa(i)] = time.Now()
		mu.Unlock()
		r.add(message(strconv.Itoa(i)))
		_ = wait(context.Background(), 20*time.Millisecond)
	}
	for _, u := range all[20:] {
		w.flushed(u.Server())
	}
	after := w.db.Stats()
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &end); err != nil {
		b.Fatal(err)
	}
	spent := end.Utime.Nano() + end.Stime.Nano() - start.Utime.Nano() - start.Stime.Nano()
	b.ReportMetric(float64(spent)/1000/float64(events), "cpu-us/event")
	b.ReportMetric(float64(after.Commits-before.Commits)/float64(events), "commits/event")
	b.ReportMetric(float64(after.Statements-before.Statements)/float64(events), "writes/event")
	b.ReportMetric(float64(after.Reads-before.Reads)/float64(events), "reads/event")
	mu.Lock()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	mu.Unlock()
	w.peers.check(b)
}

// BenchmarkCatchUp is the return of a server that was away while 20,000 events passed in 200 rooms: how long until it has the newest
// of each, and how much memory is in use while it is away.
func BenchmarkCatchUp(b *testing.B) {
	for _, database := range []string{"sqlite", "postgres"} {
		b.Run(database, func(b *testing.B) {
			for b.Loop() {
				catchUp(b, database)
			}
		})
	}
}

func catchUp(b *testing.B, database string) {
	const rooms, batches, size = 200, 10, 10
	w := newWorld(b, database)
	w.hold(far)
	w.start()
	var list []*chain
	for i := range rooms {
		list = append(list, w.newRoom(fmt.Sprint("r", i), "@f:far.example"))
	}
	heap := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / (1 << 20)
	}
	before := heap()
	for j := range batches {
		for i, r := range list {
			var s []say
			for k := range size {
				s = append(s, message(fmt.Sprintf("%d/%d", i, j*size+k)))
			}
			r.add(s...)
		}
	}
	w.until("the log is read", func() bool { return w.out.current().position() >= w.stream.Position() })
	s := w.out.current()
	s.mu.Lock()
	queued := len(s.dests[pair{acme, far}].queue)
	s.mu.Unlock()
	b.ReportMetric(float64(queued), "queued")
	b.ReportMetric(heap()-before, "grown-MB")
	began := time.Now()
	w.peers.on(matrix.ServerName(far), nil)
	w.out.Hear(far)
	w.flushed(far)
	b.ReportMetric(float64(time.Since(began).Milliseconds()), "catch-up-ms")
	b.ReportMetric(float64(len(w.peers.events(far))), "events-sent")
}
