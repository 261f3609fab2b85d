package federation_test

import (
	"encoding/json"
	"fmt"
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
