package room_test

import (
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/matrix/signing"
	"hansa/policy"
	"hansa/storage/storagetest"
)

// crowdBench is a hundred servers in fifty rooms of ours, each with a user in some of them.
type crowdBench struct {
	*town
	rooms50 []matrix.RoomID
	senders [][]matrix.UserID // of each room
	auths   map[matrix.UserID]map[matrix.RoomID][]matrix.EventID
}

func newCrowdBench(b testing.TB, database string, servers, rooms, each int) *crowdBench {
	k := newKit(b, database, nil)
	c := &crowdBench{town: &town{kit: k, others: others{}, version: "12"}, auths: map[matrix.UserID]map[matrix.RoomID][]matrix.EventID{}}
	var list []policy.Agreement
	for i := range servers {
		name := matrix.ServerName(fmt.Sprintf("s%d.example", i))
		key, err := signing.Generate(rand.Reader)
		k.must(err)
		c.others[name] = &far{name, key}
		list = append(list, policy.Agreement{ID: "a" + string(name), Owner: string(acme), Partner: string(name), State: "active",
			Scope: &policy.Scope{Direction: "both", Pools: policy.AllPools(), Features: policy.AllFeatures()}})
	}
	k.must(k.engine.SetAgreements(k.ctx(), list))
	c.fresh()
	for i := range rooms {
		id := k.create("12", "public", user("anna"))
		c.rooms50 = append(c.rooms50, id)
		var in []matrix.UserID
		for j := range each {
			who := matrix.UserID(fmt.Sprintf("@u%d:s%d.example", i, (i*each+j)%servers))
			join := c.others[who.Server()].pdu(b, "12", c.draft(id, "12", who, "m.room.member", ptr(string(who)), map[string]any{"membership": "join"}))
			k.noErrors(c.kit.rooms.Ingest(k.ctx(), acme, who.Server(), id, pdus(join)))
			in = append(in, who)
		}
		for _, who := range in {
			if c.auths[who] == nil {
				c.auths[who] = map[matrix.RoomID][]matrix.EventID{}
			}
			c.auths[who][id] = c.draft(id, "12", who, "m.room.message", nil, map[string]any{"body": "x", "msgtype": "m.text"}).AuthEvents
		}
		c.senders = append(c.senders, in)
	}
	return c
}

// BenchmarkIngest is a hundred servers that send into fifty rooms at once, ten PDUs a transaction, and users of ours who send into the same
// rooms meanwhile.
func BenchmarkIngest(b *testing.B) {
	for _, database := range storagetest.Databases() {
		b.Run(database, func(b *testing.B) { benchIngest(b, newCrowdBench(b, database, 100, 50, 2), 10) })
	}
}

// BenchmarkIngestHot is a hundred servers that send into one room, each PDU in a transaction of its own.
func BenchmarkIngestHot(b *testing.B) {
	for _, database := range storagetest.Databases() {
		b.Run(database, func(b *testing.B) { benchIngest(b, newCrowdBench(b, database, 100, 1, 100), 1) })
	}
}

func benchIngest(b *testing.B, c *crowdBench, per int) {
	type job struct {
		id  matrix.RoomID
		who matrix.UserID
		raw [][]byte
	}
	var jobs []job
	v, _ := matrix.FindRoomVersion("12")
	last := map[string]*event.Event{}
	for n := 0; n < b.N; n += per {
		i := (n / per) % len(c.rooms50)
		id := c.rooms50[i]
		who := c.senders[i][(n/per/len(c.rooms50))%len(c.senders[i])]
		line := string(who) + string(id)
		var raw [][]byte
		for range per {
			d := event.Draft{RoomID: id, Type: "m.room.message", Sender: who, Content: room.Object(map[string]any{"msgtype": "m.text", "body": fmt.Sprint(n)}),
				AuthEvents: c.auths[who][id], OriginServerTS: int64(n)}
			if p := last[line]; p != nil {
				d.PrevEvents, d.Depth = []matrix.EventID{p.ID}, p.Depth+1
			} else {
				h := c.head(id)
				d.PrevEvents, d.Depth = h.Extremities, h.Depth+1
			}
			e, err := event.Build(v, d)
			c.must(err)
			last[line] = signing.SignEvent(e, who.Server(), c.others[who.Server()].key)
			raw = append(raw, event.Federation(last[line]))
		}
		jobs = append(jobs, job{id, who, raw})
	}
	lanes := map[string]chan job{} // of each server and room: in order
	for _, j := range jobs {
		lane := string(j.who) + string(j.id)
		if lanes[lane] == nil {
			lanes[lane] = make(chan job, len(jobs))
		}
		lanes[lane] <- j
	}
	b.ResetTimer()
	var mu sync.Mutex
	var times []time.Duration
	var wg sync.WaitGroup
	for _, lane := range lanes {
		close(lane)
		wg.Go(func() {
			for j := range lane {
				begin := time.Now()
				for _, err := range c.kit.rooms.Ingest(c.ctx(), acme, j.who.Server(), j.id, j.raw) {
					if err != nil {
						b.Error(err)
					}
				}
				mu.Lock()
				times = append(times, time.Since(begin))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "PDU/s")
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)*99/100].Milliseconds()), "ms-p99")
}
