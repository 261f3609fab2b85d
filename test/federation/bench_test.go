package federation_test

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/metrics"
	"syscall"
	"testing"
	"time"

	"hansa/matrix/event"
	"hansa/storage/storagetest"
	"hansa/test/hstest"
)

// BenchmarkJoinLarge has people of servers that are new to it join a room with 5,000 members of another server, one after the other, and
// reports the processor time that both servers together took for a join, and how far the heap grew during one.
func BenchmarkJoinLarge(b *testing.B) {
	const members, perTransaction = 5000, 50
	for _, db := range storagetest.Databases() {
		b.Run(db, func(b *testing.B) {
			f := hstest.NewFederation(b, 1+b.N, func(_ int, o *hstest.Options) { o.Database = db })
			anna := f.Servers[0].User("anna")
			room := anna.CreateRoom(map[string]any{"preset": "public_chat", "room_version": "11"})
			g := enter(b, f.Outsider(hstest.Outside), "fred", room, "11")
			for i := 0; i < members; i += perTransaction {
				var list []json.RawMessage
				for k := range perTransaction {
					list = append(list, event.Federation(g.friend(fmt.Sprint("friend", i+k))))
				}
				if a := g.transaction(fmt.Sprint("t", i), list); a.Status != 200 {
					b.Fatalf("transaction: %d %s", a.Status, a.Raw)
				}
			}
			var bobs []*hstest.User
			for _, s := range f.Servers[1:] {
				bobs = append(bobs, s.User("bob"))
			}
			path := via(room, f.Servers[0])
			heap := watchHeap()
			before := spent(b)
			b.ResetTimer()
			for _, bob := range bobs {
				bob.Must("POST", path, map[string]any{})
			}
			b.StopTimer()
			b.ReportMetric(float64((spent(b)-before).Milliseconds())/float64(b.N), "cpu-ms/op")
			b.ReportMetric(heap(), "peak-MiB")
			for i, bob := range bobs {
				if n := len(bob.Must("GET", "/rooms/"+hstest.Esc(room)+"/joined_members", nil).Get("joined").(map[string]any)); n != members+3+i && n != members+2+b.N {
					b.Errorf("%d members", n)
				}
			}
		})
	}
}

// spent is the processor time that this process has taken.
func spent(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// watchHeap looks at the heap again and again. The function that it returns says how many MiB it grew at most, garbage included.
func watchHeap() (grown func() float64) {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	read := func() uint64 { metrics.Read(sample); return sample[0].Value.Uint64() }
	runtime.GC()
	start := read()
	most, stop, done := start, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for tick := time.NewTicker(time.Millisecond); ; {
			select {
			case <-tick.C:
				most = max(most, read())
			case <-stop:
				tick.Stop()
				return
			}
		}
	}()
	return func() float64 {
		close(stop)
		<-done
		return float64(most-start) / (1 << 20)
	}
}
