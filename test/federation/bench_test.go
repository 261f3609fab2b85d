package federation_test

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"hansa/matrix/event"
	"hansa/storage/storagetest"
	"hansa/test/hstest"
)

// BenchmarkInbound has many servers send into many rooms, each a transaction of a few events after the other, and reports events per second
// and how long the slowest hundredth of the transactions took. One iteration is one transaction.
func BenchmarkInbound(b *testing.B) {
	const servers, rooms, perTransaction = 100, 50, 5
	for _, db := range storagetest.Databases() {
		b.Run(db, func(b *testing.B) {
			f := hstest.NewFederation(b, 1, func(_ int, o *hstest.Options) { o.Database = db })
			anna := f.Servers[0].User("anna")
			var ids []string
			for range rooms {
				ids = append(ids, anna.CreateRoom(map[string]any{"preset": "public_chat", "room_version": "11"}))
			}
			var guests []*guest
			for i, o := range f.Crowd(servers) {
				guests = append(guests, enter(b, o, "fred", ids[i%rooms], "11"))
			}
			// The work of the other servers is done before.
			list := make([][]json.RawMessage, b.N)
			for i := range list {
				g := guests[i%servers]
				for k := range perTransaction {
					list[i] = append(list[i], event.Federation(g.message(fmt.Sprint("message ", i, " ", k))))
				}
			}
			took := make([]time.Duration, b.N)
			b.ResetTimer()
			var wg sync.WaitGroup
			for s := range servers {
				wg.Go(func() {
					for i := s; i < b.N; i += servers {
						start := time.Now()
						if a := guests[s].transaction(fmt.Sprint("t", i), list[i]); a.Status != 200 {
							b.Errorf("transaction: %d %s", a.Status, a.Raw)
						}
						took[i] = time.Since(start)
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			slices.Sort(took)
			b.ReportMetric(float64(b.N*perTransaction)/b.Elapsed().Seconds(), "PDU/s")
			b.ReportMetric(float64(took[len(took)*99/100].Milliseconds()), "p99-ms")
		})
	}
}

// BenchmarkJoinLarge has somebody join a room with 5,000 members of a third server. One iteration is one join by another user's server, so
// -benchtime=1x is what makes sense.
func BenchmarkJoinLarge(b *testing.B) {
	const members, perTransaction = 5000, 50
	for _, db := range storagetest.Databases() {
		b.Run(db, func(b *testing.B) {
			f := hstest.NewFederation(b, 2, func(_ int, o *hstest.Options) { o.Database = db })
			anna, bob := f.Servers[0].User("anna"), f.Servers[1].User("bob")
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
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			b.ResetTimer()
			bob.Must("POST", via(room, f.Servers[0]), map[string]any{})
			b.StopTimer()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/1e6, "MB-allocated")
			if n := len(bob.Must("GET", "/rooms/"+hstest.Esc(room)+"/joined_members", nil).Get("joined").(map[string]any)); n != members+3 {
				b.Errorf("%d members", n)
			}
		})
	}
}
