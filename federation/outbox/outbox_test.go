package outbox

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hansa/federation"
	"hansa/federation/fedclient"
	"hansa/matrix"
	"hansa/storage"
)

// A server gets what our users do in rooms that it is in, in order, once, signed, and nothing else.
func TestSend_InOrderToThoseWhoAreThere(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.start()
		r := w.newRoom("a")
		r.add(message("before"))
		r.add(member("@f:far.example", "@f:far.example", "join"))
		r.add(message("one"), say{sender: "@f:far.example", typ: "m.room.message", content: `{"body":"theirs"}`},
			say{sender: anna, typ: "m.room.message", content: `{"body":"hidden"}`, flags: storage.SoftFailed}, message("two"))
		w.newRoom("other").add(message("elsewhere"))
		w.flushed(far)
		wantList(t, "events", w.peers.events(far), "one", "two")
		// The last user of the server is removed: it hears of that, and of nothing more.
		r.add(message("three"), member(anna, "@f:far.example", "leave"), message("four"))
		r.add(message("five"))
		w.flushed(far)
		wantList(t, "events", w.peers.events(far), "one", "two", "three", "leave @f:far.example")
		// It comes back.
		r.add(member("@g:far.example", "@g:far.example", "join"), message("six"))
		w.flushed(far)
		wantList(t, "the rest", w.peers.events(far)[4:], "six")
		w.peers.check(t)
	})
}

// While one of its users is in the room, a server stays.
func TestSend_ServerWithSeveralUsers(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		r := w.newRoom("a", "@f:far.example", "@g:far.example")
		// All of this is in the log before anybody reads it.
		r.add(message("1"), member("@f:far.example", "@f:far.example", "leave"), message("2"), member("@g:far.example", "@g:far.example", "leave"), message("3"),
			member("@f:far.example", "@f:far.example", "join"), message("4"))
		w.start()
		w.flushed(far)
		wantList(t, "events", w.peers.events(far), "1", "2", "4")
	})
}

// An invitation that is taken back is told to the server of who was invited.
func TestSend_RetractedInvite(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.start()
		r := w.newRoom("a")
		r.add(member(anna, "@f:far.example", "invite"), message("secret"), member(anna, "@f:far.example", "leave"), message("more"))
		w.flushed(far)
		wantList(t, "events", w.peers.events(far), "leave @f:far.example")
	})
}

// A room that is closed to other servers stays so whatever is said about its members.
func TestSend_ClosedRoom(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		r := w.newRoom("a")
		r.add(say{sender: anna, typ: "m.room.create", stateKey: ptr(""), content: `{"m.federate":false}`}, member("@f:far.example", "@f:far.example", "join"), message("1"))
		w.newRoom("b", "@f:far.example").add(message("2"))
		w.start()
		w.flushed(far)
		wantList(t, "events", w.peers.events(far), "2")
	})
}

// A join that came by send_join goes to the other servers of the room, and what came by transaction does not.
func TestSend_RelaysWhatItLetIn(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.start()
		r := w.newRoom("a", "@f:far.example")
		join := member("@n:new.example", "@n:new.example", "join")
		join.flags = storage.Relayed
		r.add(join, member("@m:third.example", "@m:third.example", "join"))
		handed := member("@bob:acme.example", "@bob:acme.example", "join") // at another server, which sends it to the others
		handed.flags = storage.Relayed
		r.add(handed, message("hello"))
		for _, to := range []matrix.ServerName{far, "new.example", "third.example"} {
			w.flushed(to)
		}
		wantList(t, "far", w.peers.events(far), "join @n:new.example", "hello")
		wantList(t, "new", w.peers.events("new.example"), "hello")
		wantList(t, "third", w.peers.events("third.example"), "hello")
	})
}

// A transaction is sent again as it is, with the same ID, until it arrives: also by another process.
func TestSend_SameTransactionUntilItArrives(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		r := w.newRoom("a", "@f:far.example")
		var failures atomic.Int64
		w.peers.on(far, func(context.Context, string, federation.Transaction) error {
			if failures.Add(1) <= 3 {
				return errDown
			}
			return nil
		})
		w.start()
		r.add(message("1"), message("2"))
		w.flushed(far)
		all := w.peers.attempts(far)
		if len(all) != 4 {
			t.Fatalf("%d attempts, want 4", len(all))
		}
		for _, a := range all {
			if a.id != all[0].id || !slices.Equal(a.ids, all[0].ids) {
				t.Errorf("attempt %s with %v differs from the first, %s with %v", a.id, a.ids, all[0].id, all[0].ids)
			}
		}
		// Now it is under way when the process ends.
		under := make(chan struct{}, 10)
		w.peers.on(far, func(ctx context.Context, _ string, _ federation.Transaction) error {
			under <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		})
		r.add(message("3"), message("4"))
		<-under
		w.stop()
		r.add(message("5"))
		w.peers.on(far, nil)
		w.start()
		w.flushed(far)
		all = w.peers.attempts(far)[4:]
		if all[0].id != all[1].id || !slices.Equal(all[0].ids, all[1].ids) {
			t.Errorf("after a restart %s with %v was sent instead of %s with %v", all[1].id, all[1].ids, all[0].id, all[0].ids)
		}
		wantList(t, "events", w.peers.events(far), "1", "2", "3", "4", "5")
		w.peers.check(t)
	})
}

// Transactions keep to 50 PDUs and 100 EDUs.
func TestSend_Limits(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		r := w.newRoom("a", "@f:far.example")
		var list []say
		var want []string
		for i := range 120 {
			list, want = append(list, message(fmt.Sprint(i))), append(want, fmt.Sprint(i))
		}
		r.add(list...)
		w.update(func(tx *storage.Tx) error {
			for i := range 250 {
				if err := tx.QueueEDU(acme, far, "m.test", "", fmt.Appendf(nil, `{"n":%d}`, i)); err != nil {
					return err
				}
			}
			return nil
		})
		w.start(func(c *tuning) { c.queue = 1000 })
		w.flushed(far)
		wantList(t, "events", w.peers.events(far), want...)
		edus := w.peers.edus(far, "m.test")
		for i, e := range edus {
			if e != fmt.Sprintf(`{"n":%d}`, i) {
				t.Fatalf("EDU %d is %s", i, e)
			}
		}
		if len(edus) != 250 {
			t.Errorf("%d EDUs, want 250", len(edus))
		}
		w.peers.check(t)
	})
}

// A newer EDU of the same key replaces one that waits; what nobody would take is refused.
func TestQueueEDU(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		down := w.hold(far)
		w.start()
		w.update(func(tx *storage.Tx) error {
			for _, c := range []string{`{"v":1}`, `{"v":2}`} {
				if err := tx.QueueEDU(acme, far, federation.EDUDeviceList, "@anna", []byte(c)); err != nil {
					return err
				}
			}
			return tx.QueueEDU(acme, far, federation.EDUToDevice, "", []byte(`{"v":3}`))
		})
		close(down)
		w.flushed(far)
		wantList(t, "lists", w.peers.edus(far, federation.EDUDeviceList), `{"v":2}`)
		wantList(t, "messages", w.peers.edus(far, federation.EDUToDevice), `{"v":3}`)
		for name, c := range map[string]string{"large": `{"v":"` + strings.Repeat("x", 65536) + `"}`, "broken": `{"v":`, "a list": `[]`, "bad UTF-8": "{\"v\":\"\xff\"}"} {
			err := w.db.Update(context.Background(), func(tx *storage.Tx) error { return tx.QueueEDU(acme, far, "m.test", "", []byte(c)) })
			if err == nil {
				t.Errorf("F131: an EDU that is %s was queued", name)
			}
		}
		w.until("delivered EDUs are deleted", func() bool {
			var left []storage.QueuedEDU
			if err := w.db.Read(context.Background(), func(tx *storage.Tx) (err error) {
				left, err = tx.LoadQueuedEDUs(acme, far, 0, 1<<60, 10)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			return len(left) == 0
		})
	})
}

// hold makes a server fail until the channel is closed.
func (w *world) hold(to matrix.ServerName) chan struct{} {
	open := make(chan struct{})
	w.peers.on(to, func(context.Context, string, federation.Transaction) error {
		select {
		case <-open:
			return nil
		default:
			return errDown
		}
	})
	return open
}

// Receipts go together, those of one user in several threads apart, and private ones never.
func TestSend_Receipts(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.start(func(c *tuning) { c.lazy = time.Hour })
		r := w.newRoom("a", "@f:far.example")
		e := r.add(message("1"))[0]
		w.flushed(far)
		put := func(user matrix.UserID, typ, thread string) {
			w.update(func(tx *storage.Tx) error {
				_, err := tx.PutReceipt(storage.Receipt{RoomID: r.room.ID, UserID: user, Type: typ, ThreadID: thread, EventID: e.ID, EventPos: e.Pos, TS: 7})
				return err
			})
		}
		put(anna, "m.read.private", "")
		put("@f:far.example", "m.read", "")
		put(anna, "m.read", "")
		put("@bob:acme.example", "m.read", "")
		put(anna, "m.read", "main")
		w.read()
		r.add(message("2")) // the company that they wait for
		w.flushed(far)
		one := fmt.Sprintf(`{"data":{"ts":7},"event_ids":["%s"]}`, e.ID)
		wantList(t, "receipts", w.peers.edus(far, federation.EDUReceipt),
			fmt.Sprintf(`{"%s":{"m.read":{"%s":%s,"@bob:acme.example":%s}}}`, r.room.ID, anna, one, one),
			fmt.Sprintf(`{"%s":{"m.read":{"%s":{"data":{"ts":7,"thread_id":"main"},"event_ids":["%s"]}}}}`, r.room.ID, anna, e.ID))
		w.start()
		put("@bob:acme.example", "m.read", "main")
		w.flushed(far)
		if n := len(w.peers.edus(far, federation.EDUReceipt)); n != 3 {
			t.Errorf("%d EDUs with receipts, want one more: nobody waits for company for ever", n)
		}
	})
}

// Typing and presence go to those whom they concern, the newest only, and not to a server that does not answer.
func TestEphemeral(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.start()
		r := w.newRoom("a", "@f:far.example")
		other := w.newRoom("b", "@g:third.example")
		r.add(message("1"))
		w.flushed(far)
		w.flushed("third.example")
		typing := federation.EDU{Type: federation.EDUTyping, Content: []byte(`{"typing":true}`)}
		w.out.Ephemeral(acme, About{Room: r.room.ID, User: anna}, typing)
		w.until("typing", func() bool { return len(w.peers.edus(far, federation.EDUTyping)) == 1 })
		w.out.Ephemeral(acme, About{User: anna}, federation.EDU{Type: federation.EDUPresence, Content: []byte(`{"push":[{"user_id":"@anna:acme.example"}]}`)})
		w.until("presence", func() bool {
			return len(w.peers.edus(far, federation.EDUPresence)) == 1 && len(w.peers.edus("third.example", federation.EDUPresence)) == 1
		})
		if n := len(w.peers.edus("third.example", federation.EDUTyping)); n != 0 {
			t.Errorf("%d typing EDUs at a server that is not in the room", n)
		}
		down := w.hold(far)
		r.add(message("2"))
		w.until("a failure", func() bool {
			return slices.ContainsFunc(w.rows(), func(d storage.Destination) bool { return d.Name == far && d.Failures > 0 })
		})
		w.out.Ephemeral(acme, About{Room: r.room.ID, User: anna}, typing)
		w.out.Ephemeral(acme, About{Room: other.room.ID, User: anna}, typing)
		w.until("what was said after it", func() bool { return len(w.peers.edus("third.example", federation.EDUTyping)) == 1 })
		close(down)
		w.flushed(far)
		if n := len(w.peers.edus(far, federation.EDUTyping)); n != 1 {
			t.Errorf("%d typing EDUs, want only the one from before", n)
		}
	})
}

// A server that does not answer is left alone for longer and longer, as the database remembers.
func TestPause_IsStored(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		r := w.newRoom("a", "@f:far.example")
		w.hold(far)
		w.start(func(c *tuning) { c.pauseLast = time.Hour })
		r.add(message("1"))
		w.until("five failures", func() bool {
			for _, d := range w.rows() {
				if d.Failures >= 5 {
					return true
				}
			}
			return false
		})
		w.stop()
		d := w.rows()[0]
		if d.RetryTS == 0 || d.FailedTS == 0 || d.LastError != errDown.Error() {
			t.Errorf("stored: %+v", d)
		}
		// With a pause of an hour stored, nothing is tried; unless the server shows that it is there.
		w.update(func(tx *storage.Tx) error {
			d.RetryTS = time.Now().Add(time.Hour).UnixMilli()
			return tx.PutDestinations([]storage.Destination{d})
		})
		w.peers.on(far, nil)
		before := len(w.peers.attempts(far))
		w.start()
		r.add(message("2"))
		w.read()
		if n := len(w.peers.attempts(far)); n != before {
			t.Errorf("%d attempts in the pause", n-before)
		}
		w.out.Hear(far)
		w.flushed(far)
		wantList(t, "events", w.peers.events(far), "1", "2")
	})
}

func (s *session) position() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pos
}

// A server that says when to come again is left alone until then.
func TestPause_RetryAfter(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		r := w.newRoom("a", "@f:far.example")
		w.start(func(c *tuning) { c.pauseLast = time.Hour })
		w.peers.on(far, func(context.Context, string, federation.Transaction) error {
			return &fedclient.Error{Status: 429, Code: "M_LIMIT_EXCEEDED", RetryAfter: 30 * time.Minute}
		})
		r.add(message("1"))
		w.until("the pause", func() bool {
			rows := w.rows()
			return len(rows) == 1 && rows[0].RetryTS > time.Now().Add(29*time.Minute).UnixMilli()
		})
	})
}
