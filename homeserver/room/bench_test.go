package room_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage"
)

// BenchmarkSend is one message into a hot room with the demo's kind of policy: policy, rules, build, commit.
func BenchmarkSend(b *testing.B) {
	for _, parallel := range []int{1, 16} {
		b.Run(fmt.Sprint(parallel, "-senders"), func(b *testing.B) {
			k := newKit(b, "sqlite", pools())
			id := k.create("12", "public", user("anna"))
			warm(b, k, id)
			before := k.db.Stats()
			b.ReportAllocs()
			b.SetParallelism(max(1, parallel/2))
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := k.say(id, user("anna"), "hello"); err != nil {
						b.Error(err)
					}
				}
			})
			after := k.db.Stats()
			b.ReportMetric(float64(after.Commits-before.Commits)/float64(b.N), "commits/op")
			b.ReportMetric(float64(after.Reads-before.Reads)/float64(b.N), "reads/op")
		})
	}
}

func pools() map[string]string {
	return map[string]string{"acme.example/pools.yaml": "research: {groups: [rnd], contact: closed}\nsales: {groups: [sales], contact: {with: [marketing]}}\nmarketing: {groups: [marketing], contact: {with: [sales]}}\n"}
}

func warm(b *testing.B, k *kit, id matrix.RoomID) {
	b.Helper()
	if _, err := k.say(id, user("anna"), "warm"); err != nil {
		b.Fatal(err)
	}
}

// cpu adds the processor time of one operation to the figures: the machine may be shared.
func cpu(b *testing.B) func() {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	start := used()
	return func() { b.ReportMetric(float64(used()-start)/float64(b.N)/1000, "cpu-us/op") }
}

// BenchmarkSendFilled is a message into a hot room with many events in the database: HANSA_BENCH_EVENTS of them, 10,000 unless set.
func BenchmarkSendFilled(b *testing.B) {
	n := 10000
	if v, err := strconv.Atoi(os.Getenv("HANSA_BENCH_EVENTS")); err == nil {
		n = v
	}
	b.Run(fmt.Sprint(n, "-events"), func(b *testing.B) {
		k := newKit(b, "sqlite", nil)
		id := k.create("12", "public", user("anna"))
		fill(b, k, id, n)
		k.restart()
		warm(b, k, id)
		b.ReportAllocs()
		b.ResetTimer()
		defer cpu(b)()
		for i := 0; i < b.N; i++ {
			if _, err := k.say(id, user("anna"), "hello"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// fill appends messages as fast as the database takes them.
func fill(b *testing.B, k *kit, id matrix.RoomID, n int) {
	b.Helper()
	var r *storage.Room
	load := func() {
		if err := k.db.Read(context.Background(), func(tx *storage.Tx) (err error) { r, err = tx.LoadRoom(id); return err }); err != nil {
			b.Fatal(err)
		}
	}
	load()
	content := room.Object(map[string]any{"msgtype": "m.text", "body": "a message of the size that people write to one another during a day at work"})
	const batch = 250
	for n > 0 {
		a := &storage.Append{Room: r, Head: r.Head}
		for i := 0; i < min(n, batch); i++ {
			e, err := event.Build(r.Version, event.Draft{RoomID: id, Type: "m.room.message", Sender: user("anna"), Content: content,
				PrevEvents: a.Head.Extremities, AuthEvents: r.Head.Extremities[:0], Depth: a.Head.Depth + 1, OriginServerTS: int64(n)})
			if err != nil {
				b.Fatal(err)
			}
			a.Events = append(a.Events, storage.NewEvent{Event: e, StateRoot: r.Head.StateRoot})
			a.Head = storage.Head{Name: string(e.ID), Extremities: []matrix.EventID{e.ID}, Depth: a.Head.Depth + 1, StateRoot: r.Head.StateRoot}
		}
		if err := k.db.Append(context.Background(), a); err != nil {
			b.Fatal(err)
		}
		n -= len(a.Events)
		r = a.Room
	}
}

// BenchmarkFork10k is what a fork costs in a room of 10,000 members: a topic of another server beside one of ours, resolved and stored.
func BenchmarkFork10k(b *testing.B) {
	const members = 10000
	k := newKit(b, "sqlite", partner())
	id := k.create("12", "public", user("anna"))
	for i := 0; i < members; i++ {
		k.must(k.member(id, user(fmt.Sprint("u", i)), user(fmt.Sprint("u", i)), "join"))
	}
	fred, _ := k.fred(id, "12")
	k.must(k.state(id, user("anna"), "m.room.power_levels", "", map[string]any{"users": map[string]any{string(fred): 50}, "invite": 0}))
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		b.StopTimer()
		d := k.draft(id, "12", fred, "m.room.topic", ptr(""), map[string]any{"topic": fmt.Sprint("fred ", i)})
		k.must(k.state(id, user("anna"), "m.room.topic", "", map[string]any{"topic": fmt.Sprint("anna ", i)}))
		e := k.far.pdu(b, "12", d)
		b.StartTimer()
		if r, err := k.receive(e); err != nil || r.Flags != 0 {
			b.Fatalf("%+v, %v", r, err)
		}
		b.StopTimer()
		_, err := k.say(id, user("anna"), "joins the ends")
		k.must(err)
		b.StartTimer()
	}
}
