package outbox

import (
	"context"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"hansa/federation"
	"hansa/matrix"
	"hansa/storage"
	"hansa/storage/storagetest"
)

// Of two nodes one sends. When it stops the other goes on where it was, with the same transaction where one was under way.
func TestF471_AnotherNodeGoesOn(t *testing.T) {
	t.Parallel()
	url := storagetest.URL(t, "postgres")
	a, b := newNode(t, url), newNode(t, url)
	b.peers = a.peers // the other servers are the same
	a.start()
	a.until("the first node sends", func() bool { return a.out.current() != nil })
	b.start()
	r := a.newRoom("a", "@f:far.example")
	r.add(message("1"))
	a.flushed(far)
	under := make(chan struct{}, 10)
	a.peers.on(far, func(ctx context.Context, _ string, _ federation.Transaction) error {
		under <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	r.add(message("2"))
	<-under
	if b.out.current() != nil {
		t.Error("both nodes send")
	}
	a.peers.on(far, nil)
	began := time.Now()
	a.stop()
	r.add(message("3"))
	b.flushed(far)
	if d := time.Since(began); d > leaseTime*4/5 { // it does not wait until the lease ends
		t.Errorf("the other node took %s", d)
	}
	wantList(t, "events", a.peers.events(far), "1", "2", "3")
	all := a.peers.attempts(far)
	if len(all) < 3 || all[1].id != all[2].id {
		t.Errorf("the other node did not send the same transaction: %v", all)
	}
}

// What a node writes that has lost its lease without knowing has no effect.
func TestF471_WritesAreFenced(t *testing.T) {
	t.Parallel()
	w := newNode(t, storagetest.URL(t, "postgres"))
	w.start(func(c *tuning) { c.save = time.Hour })
	r := w.newRoom("a", "@f:far.example")
	w.until("it sends", func() bool { return w.out.current() != nil })
	s := w.out.current()
	r.add(message("1"))
	w.until("the first event", func() bool { return len(w.peers.events(far)) == 1 })
	w.update(func(tx *storage.Tx) error {
		leases, err := tx.LoadLeases()
		for _, l := range leases {
			if err == nil && l.Name == name {
				err = tx.FreeLease(l)
			}
		}
		return err
	})
	err := s.update(context.Background(), func(tx *storage.Tx) error {
		return tx.PutRoomServers([]storage.RoomServer{{RoomID: r.room.ID, Server: "new.example", Since: 1}})
	})
	if err == nil {
		t.Error("a node without lease has written")
	}
}

// What another node hears and has to say goes to the node that sends.
func TestListen(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.start()
		r := w.newRoom("a", "@f:far.example")
		r.add(message("1"))
		w.flushed(far)
		say := func(x word) {
			b, err := json.Marshal(x)
			if err != nil {
				t.Fatal(err)
			}
			w.out.listen(b)
		}
		var told *session
		w.until("typing", func() bool {
			if now := w.out.current(); now != told { // what one types is lost with the lease, which a machine that is busy may lose
				told = now
				say(word{As: acme, About: About{Room: r.room.ID, User: anna}, EDU: federation.EDU{Type: federation.EDUTyping, Content: []byte(`{}`)}})
			}
			return len(w.peers.edus(far, federation.EDUTyping)) > 0
		})
		w.hold(far)
		w.stop()
		before := len(w.peers.attempts(far))
		w.start(func(c *tuning) { c.pauseFirst, c.pauseLast = time.Hour, time.Hour })
		r.add(message("2"))
		w.until("a failure", func() bool { return len(w.peers.attempts(far)) > before })
		w.peers.on(far, nil)
		w.until("the pause", func() bool { rows := w.rows(); return len(rows) == 1 && rows[0].Failures == 1 })
		say(word{Heard: far})
		w.flushed(far)
		wantList(t, "events", w.peers.events(far), "1", "2")
		w.out.listen([]byte(`{`))
		w.out.listen([]byte(`{"heard":""}`))
	})
}

// Stays in rooms that ended long ago and EDUs that nobody came for are deleted.
func TestTidy(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.hold("fourth.example")
		w.start(func(c *tuning) { c.tidy, c.keep, c.behindAfter = 20*time.Millisecond, 0, time.Hour })
		r := w.newRoom("a", "@f:far.example", "@g:third.example")
		r.add(message("1"), member("@f:far.example", "@f:far.example", "leave"), message("2"))
		w.flushed(far)
		w.update(func(tx *storage.Tx) error {
			return tx.QueueEDU(acme, "fourth.example", federation.EDUToDevice, "", []byte(`{}`))
		})
		w.until("all is tidy", func() bool {
			var rooms map[string]int
			var edus []storage.QueuedEDU
			if err := w.db.Read(context.Background(), func(tx *storage.Tx) error {
				found, err := tx.LoadOutboxRooms([]matrix.RoomID{r.room.ID}, 0)
				rooms = map[string]int{}
				for _, s := range found[r.room.ID].Servers {
					rooms[string(s.Server)]++
				}
				if err == nil {
					edus, err = tx.LoadQueuedEDUs(acme, "fourth.example", 0, 1<<60, 10)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			return rooms["far.example"] == 0 && rooms["third.example"] == 1 && len(edus) == 0
		})
	})
}
