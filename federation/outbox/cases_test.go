package outbox

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hansa/federation"
	"hansa/federation/fedclient"
	"hansa/matrix"
	"hansa/storage"
)

// Servers that are dead or slow cost the others nothing, however many they are, and only so many are waited for at a time.
func TestF129_DeadAndSlowServersDelayNobody(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		const servers, bad = 60, 25
		all := users(servers)
		r := w.newRoom("a", all...)
		release := make(chan struct{})
		var mu sync.Mutex
		under, most := 0, 0
		for i := range bad { // they accept the connection and never answer
			w.peers.on(all[i].Server(), func(ctx context.Context, _ string, _ federation.Transaction) error {
				mu.Lock()
				under++
				most = max(most, under)
				mu.Unlock()
				defer func() { mu.Lock(); under--; mu.Unlock() }()
				select {
				case <-release:
				case <-ctx.Done():
				}
				return errDown
			})
		}
		w.start(func(c *tuning) {
			c.fast, c.slow, c.dead, c.overflow, c.slowAfter, c.timeout = 10, 5, 5, 20, 100*time.Millisecond, time.Hour
		})
		before := runtime.NumGoroutine()
		var want []string
		for i := range 20 {
			want = append(want, fmt.Sprint(i))
			r.add(message(want[i]))
		}
		for _, u := range all[bad:] {
			w.flushed(u.Server())
			wantList(t, string(u.Server()), w.peers.events(u.Server()), want...)
		}
		mu.Lock()
		if most > 10+20 {
			t.Errorf("%d transactions to dead servers at a time", most)
		}
		mu.Unlock()
		if n := runtime.NumGoroutine() - before; n > 500 {
			t.Errorf("%d more goroutines", n)
		}
		close(release)
		for _, u := range all[:bad] {
			w.peers.on(u.Server(), nil)
		}
		for _, u := range all[:bad] {
			w.flushed(u.Server())
		}
		w.peers.check(t)
	})
}

// What waits for a dead server is bounded: it is forgotten and looked up again.
func TestF129_QueueOfADeadServerIsBounded(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.hold(far)
		w.start(func(c *tuning) { c.queue = 20 })
		r := w.newRoom("a", "@f:far.example")
		for i := range 10 {
			var list []say
			for j := range 50 {
				list = append(list, message(fmt.Sprint(50*i+j)))
			}
			r.add(list...)
		}
		w.read()
		s := w.out.current()
		s.mu.Lock()
		d := s.dests[pair{acme, far}]
		if !d.behind || len(d.queue) > 20 {
			t.Errorf("behind %v with %d in the queue, want behind with at most 20", d.behind, len(d.queue))
		}
		s.mu.Unlock()
		w.peers.on(far, nil)
		w.flushed(far)
		if got := w.peers.events(far); got[len(got)-1] != "499" {
			t.Errorf("the last event is %s, want 499", got[len(got)-1])
		}
	})
}

// A server that was away for long gets the newest event of each room first, each once, and then goes on as before.
func TestF130_ServerBackAfterDays(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		const rooms, each = 120, 10
		down := w.hold(far)
		w.start(func(c *tuning) { c.queue, c.scan = 50, 70 })
		var list []*chain
		for i := range rooms {
			list = append(list, w.newRoom(fmt.Sprint("r", i), "@f:far.example"))
		}
		w.newRoom("none").add(message("not for you"))
		for j := range each {
			for i, r := range list {
				if i < 100 || j < each-1 {
					r.add(message(fmt.Sprintf("%d/%d", i, j)))
				}
			}
		}
		w.update(func(tx *storage.Tx) error {
			for i := range 200 {
				if err := tx.QueueEDU(acme, far, federation.EDUToDevice, "", fmt.Appendf(nil, `{"n":%d}`, i)); err != nil {
					return err
				}
			}
			return nil
		})
		// The server leaves a room and comes into another while it is away.
		list[3].add(member("@f:far.example", "@f:far.example", "leave"), message("after you left"))
		w.read()
		w.stop() // and the process is started anew
		w.start(func(c *tuning) { c.queue, c.scan = 50, 70 })
		w.read()
		close(down)
		w.flushed(far)
		got := w.peers.events(far)
		seen := map[string]int{}
		for _, e := range got {
			seen[e]++
		}
		for i := range rooms {
			last := fmt.Sprintf("%d/%d", i, each-1)
			if i >= 100 {
				last = fmt.Sprintf("%d/%d", i, each-2)
			}
			if seen[last] != 1 {
				t.Errorf("the newest event of room %d came %d times", i, seen[last])
			}
		}
		if seen["not for you"]+seen["after you left"] > 0 {
			t.Error("the server got what does not concern it")
		}
		if len(got) > rooms+50 {
			t.Errorf("%d events for %d rooms", len(got), rooms)
		}
		for i, e := range w.peers.edus(far, federation.EDUToDevice) {
			if e != fmt.Sprintf(`{"n":%d}`, i) {
				t.Fatalf("message %d is %s", i, e)
			}
		}
		if n := len(w.peers.edus(far, federation.EDUToDevice)); n != 200 {
			t.Errorf("%d messages to devices, want 200", n)
		}
		list[0].add(message("live again"), message("in full"))
		w.flushed(far)
		wantList(t, "then", w.peers.events(far)[len(got):], "live again", "in full")
		w.peers.check(t)
	})
}

// An event that a server refuses for ever is put aside, and all others arrive.
func TestF131_PoisonItem(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		r := w.newRoom("a", "@f:far.example")
		w.peers.on(far, func(_ context.Context, _ string, b federation.Transaction) error {
			for _, n := range names(b) {
				if n == "poison" {
					return &fedclient.Error{Status: 400, Code: "M_BAD_JSON", Message: fmt.Sprintf("not after %d", time.Now().UnixNano())}
				}
			}
			for _, e := range b.EDUs {
				if strings.Contains(string(e.Content), "poison") {
					return &fedclient.Error{Status: 413, Code: "M_TOO_LARGE"}
				}
			}
			return nil
		})
		var list []say
		var want []string
		for i := range 60 {
			if i == 37 {
				list = append(list, message("poison"))
			}
			list, want = append(list, message(fmt.Sprint(i))), append(want, fmt.Sprint(i))
		}
		stored := r.add(list...)
		w.update(func(tx *storage.Tx) error {
			for _, c := range []string{`{"n":1}`, `{"n":"poison"}`, `{"n":2}`} {
				if err := tx.QueueEDU(acme, far, federation.EDUToDevice, "", []byte(c)); err != nil {
					return err
				}
			}
			return nil
		})
		w.start()
		w.flushed(far)
		wantList(t, "events", w.peers.events(far), want...)
		wantList(t, "EDUs", w.peers.edus(far, federation.EDUToDevice), `{"n":1}`, `{"n":2}`)
		var aside []storage.Quarantined
		if err := w.db.Read(context.Background(), func(tx *storage.Tx) (err error) { aside, err = tx.LoadQuarantined(10); return err }); err != nil {
			t.Fatal(err)
		}
		if len(aside) != 2 || aside[0].Item != string(stored[37].ID) || aside[0].Status != 400 || aside[1].Item != federation.EDUToDevice ||
			string(aside[1].Content) != `{"n":"poison"}` {
			t.Errorf("put aside: %+v", aside)
		}
		if n := len(w.peers.attempts(far)); n > 60 {
			t.Errorf("%d attempts to find two items of 63", n)
		}
		w.peers.check(t)
	})
}

// A server that refuses everything is waited for: nothing is put aside.
func TestF131_ServerThatRefusesAll(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		r := w.newRoom("a", "@f:far.example")
		w.peers.on(far, func(context.Context, string, federation.Transaction) error {
			return &fedclient.Error{Status: 400, Code: "M_UNKNOWN"}
		})
		r.add(message("1"), message("2"), message("3"))
		w.start()
		w.until("many refusals", func() bool { return len(w.peers.attempts(far)) > 20 })
		w.peers.on(far, nil)
		w.flushed(far)
		wantList(t, "events", w.peers.events(far), "1", "2", "3")
		var aside []storage.Quarantined
		if err := w.db.Read(context.Background(), func(tx *storage.Tx) (err error) { aside, err = tx.LoadQuarantined(10); return err }); err != nil || len(aside) > 0 {
			t.Errorf("put aside: %+v, %v", aside, err)
		}
	})
}

// A server that was never approved costs nothing: nothing is sent, nothing stored.
func TestR333_NothingForAServerWithoutAgreement(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.door.set(far, true, false)
		w.start()
		r := w.newRoom("a", "@f:far.example", "@g:third.example")
		r.add(message("1"))
		w.update(func(tx *storage.Tx) error {
			return tx.QueueEDU(acme, far, federation.EDUToDevice, "", []byte(`{}`))
		})
		w.out.Ephemeral(acme, About{Room: r.room.ID, User: anna}, federation.EDU{Type: federation.EDUTyping, Content: []byte(`{}`)})
		w.flushed("third.example")
		w.until("the message to a device is gone", func() bool {
			var left []storage.QueuedEDU
			if err := w.db.Read(context.Background(), func(tx *storage.Tx) (err error) {
				left, err = tx.LoadQueuedEDUs(acme, far, 0, 1<<60, 10)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			return len(left) == 0
		})
		if n := len(w.peers.attempts(far)); n != 0 {
			t.Errorf("%d transactions", n)
		}
		for _, d := range w.rows() {
			if d.Name == far {
				t.Errorf("stored: %+v", d)
			}
		}
		// Once it is approved it gets what comes then.
		w.door.set(far, false, false)
		w.until("the approval is noticed", func() bool { r.add(message("2")); return len(w.peers.events(far)) > 0 })
		if got := w.peers.events(far); slices.Contains(got, "1") {
			t.Errorf("got %v, want nothing from before the approval", got)
		}
	})
}

// A suspension stops what is under way and forgets what waits, within a second, however long the server does not answer.
func TestR357_SuspensionForgetsTheQueue(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		r := w.newRoom("a", "@f:far.example", "@g:third.example")
		under := make(chan struct{}, 100)
		ended := make(chan time.Time, 100)
		w.peers.on(far, func(ctx context.Context, _ string, _ federation.Transaction) error {
			under <- struct{}{}
			<-ctx.Done()
			ended <- time.Now()
			return ctx.Err()
		})
		w.hold("third.example")
		w.start(func(c *tuning) {
			c.queue, c.pauseFirst, c.pauseLast, c.look = 10, time.Hour, time.Hour, standard().look
		})
		for i := range 30 {
			r.add(message(fmt.Sprint(i)))
		}
		<-under
		w.until("a failure of the third", func() bool { return len(w.peers.attempts("third.example")) > 0 })
		began := time.Now()
		w.door.set(far, true, false)
		w.door.set("third.example", true, false)
		// The door is asked often enough for a second; what comes of it may be late on a machine that is busy with other tests, but not wait
		// for the server, which is given 90 s, nor for the end of a pause of an hour.
		if look := standard().look; look > 500*time.Millisecond {
			t.Errorf("a suspension is looked for every %s", look)
		}
		if d := (<-ended).Sub(began); d > 20*time.Second {
			t.Errorf("a transaction went on for %s after the suspension", d)
		}
		w.until("all is forgotten", func() bool { return len(w.rows()) == 0 })
		before := len(w.peers.attempts(far)) + len(w.peers.attempts("third.example"))
		r.add(message("after"))
		w.read()
		if n := len(w.peers.attempts(far)) + len(w.peers.attempts("third.example")); n != before {
			t.Error("something was sent after the suspension")
		}
	})
}

// In the wind-down people are still taken out of rooms, and the server hears of that and of nothing else.
func TestR357_WindDownTellsOfKicks(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		r := w.newRoom("a", "@f:far.example")
		q := w.newRoom("b", "@f:far.example")
		w.start()
		r.add(message("1"))
		w.flushed(far)
		down := w.hold(far)
		r.add(message("2"))
		w.until("a failure", func() bool { return len(w.peers.attempts(far)) > 1 })
		w.door.set(far, true, true)
		r.add(message("3"), member(anna, "@f:far.example", "leave"))
		q.add(message("4"), member(anna, "@f:far.example", "ban"), message("5"))
		w.until("the wind-down is noticed", func() bool { list := w.peers.attempts(far); return !slices.Contains(list[len(list)-1].ids, "2") })
		close(down)
		w.until("the kicks", func() bool { return len(w.peers.events(far)) >= 3 })
		wantList(t, "events", w.peers.events(far), "1", "leave @f:far.example", "ban @f:far.example")
	})
}

// A transaction that is made while the door closes is not sent: of what is in it, only that somebody was taken out of a room is.
func TestR357_WindDownWhileMaking(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		r := w.newRoom("a", "@f:far.example")
		making, made := make(chan struct{}), make(chan struct{})
		release := sync.OnceFunc(func() { close(made) })
		defer release()
		var armed atomic.Bool
		w.rooms.each = func() {
			if armed.CompareAndSwap(true, false) {
				close(making)
				<-made
			}
		}
		down := w.hold(far)
		w.start(func(c *tuning) { c.queue = 2 })
		r.add(message("1"), message("2"), message("3"), message("4")) // more than are queued: they are looked up, for each attempt anew
		w.read()
		armed.Store(true)
		<-making
		r.add(member(anna, "@f:far.example", "leave"))
		w.read()
		close(down)
		w.door.set(far, true, true)
		var asked atomic.Int64
		w.door.asks(func() { asked.Add(1) })
		w.until("the wind-down is noticed", func() bool { return asked.Load() > 1 })
		release()
		w.until("the kick", func() bool { return len(w.peers.events(far)) > 0 })
		wantList(t, "events", w.peers.events(far), "leave @f:far.example")
	})
}

// Whatever fails and whenever: every event arrives, in order, at least once, and after a suspension none does.
func TestProperty_RandomFailures(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			each(t, func(t *testing.T, w *world) { failAtRandom(t, w, seed) })
		})
	}
}

func failAtRandom(t *testing.T, w *world, seed uint64) {
	rnd := seeded(seed)
	var mu sync.Mutex
	chance := func(n int) int { mu.Lock(); defer mu.Unlock(); return rnd.IntN(n) }
	servers := []matrix.UserID{"@u:one.example", "@u:two.example", "@u:gone.example"}
	var suspended atomic.Bool
	var late atomic.Int64
	for _, u := range servers {
		to := u.Server()
		w.peers.on(to, func(_ context.Context, _ string, b federation.Transaction) error {
			if to == "gone.example" && suspended.Load() && late.Add(1) > 1 { // one may have been on its way
				t.Errorf("%s was sent %v after its suspension", to, names(b))
			}
			switch chance(6) {
			case 0:
				return errDown
			case 1:
				return &fedclient.Error{Status: 502}
			case 2:
				return &fedclient.Error{Status: 429, RetryAfter: time.Millisecond}
			}
			return nil
		})
	}
	long := func(c *tuning) { c.queue, c.behindAfter = 1000, time.Hour }
	w.start(long)
	var rooms []*chain
	for i := range 3 {
		rooms = append(rooms, w.newRoom(fmt.Sprint("r", i), servers...))
	}
	var want []string
	for i := range 60 {
		n := chance(4) + 1
		var list []say
		for j := range n {
			want = append(want, fmt.Sprintf("%d.%d", i, j))
			list = append(list, message(want[len(want)-1]))
		}
		rooms[chance(3)].add(list...)
		switch chance(15) {
		case 0:
			w.start(long) // stops the one that runs
		case 1:
			w.door.set("gone.example", true, false)
			suspended.Store(true)
		}
	}
	for _, u := range servers[:2] {
		w.flushed(u.Server())
		got := w.peers.events(u.Server())
		// At least once, and in order when what came again is left out.
		var first []string
		seen := map[string]bool{}
		for _, e := range got {
			if !seen[e] {
				seen[e] = true
				first = append(first, e)
			}
		}
		wantArrived(t, string(u.Server()), first, want)
	}
	w.peers.check(t)
}

// wantArrived checks that what came is in order, and that each event came unless a later one of its room did while the server was behind.
func wantArrived(t *testing.T, server string, got, want []string) {
	t.Helper()
	at := -1
	for _, e := range got {
		i := slices.Index(want, e)
		if i < 0 {
			t.Errorf("%s got %q", server, e)
		}
		if i < at {
			t.Errorf("%s got %s after %s", server, e, want[at])
		}
		at = i
	}
	if at != len(want)-1 {
		t.Errorf("%s did not get the last event", server)
	}
	if len(got) < len(want)*9/10 {
		t.Errorf("%s got %d of %d events", server, len(got), len(want))
	}
}

// A bug in what is done with the answer of one server, or beside the transactions, interrupts the sending and ends neither it nor the process.
func TestD481_PanicsInTheOutbox(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		r := w.newRoom("a", "@f:far.example", "@n:near.example")
		var sent, asked atomic.Int64
		w.peers.on(far, func(context.Context, string, federation.Transaction) error {
			if sent.Add(1) == 1 {
				panic("a bug with the answer")
			}
			return nil
		})
		w.start()
		r.add(message("1"))
		w.flushed("near.example")
		w.flushed(far)
		wantList(t, "far", w.peers.events(far), "1")

		w.door.asks(func() {
			if asked.Add(1) == 1 {
				panic("a bug beside the transactions")
			}
		})
		r.add(message("2"))
		w.flushed("near.example")
		w.flushed(far)
		wantList(t, "far", w.peers.events(far), "1", "2")
		wantList(t, "near", w.peers.events("near.example"), "1", "2")
		if asked.Load() < 2 {
			t.Errorf("the door was asked %d times", asked.Load())
		}
	})
}
