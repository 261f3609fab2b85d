package fedserver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hansa/homeserver/ratelimit"
	"hansa/matrix"
)

// A server that storms waits for itself; another one that asks a little is served at its turn.
func TestF134_StormOfOneOrigin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(4, 2, 50)
		var mu sync.Mutex
		refused, served := 0, 0
		var wg sync.WaitGroup
		for range 500 {
			wg.Go(func() {
				leave, err := g.enter(t.Context(), "storm.example")
				mu.Lock()
				defer mu.Unlock()
				var me *matrix.Error
				if errors.As(err, &me) && me.Status == 429 {
					refused++
					return
				}
				served++
				mu.Unlock()
				<-time.After(time.Second)
				leave()
				mu.Lock()
			})
		}
		synctest.Wait()
		start := time.Now()
		leave, err := g.enter(t.Context(), "calm.example")
		if err != nil {
			t.Fatal(err)
		}
		if wait := time.Since(start); wait > 0 {
			t.Errorf("the other server waited %v", wait)
		}
		leave()
		wg.Wait()
		if refused < 440 || served < 40 { // two a second, for as long as they may wait
			t.Errorf("%d were refused and %d served", refused, served)
		}
		if len(g.lanes) != 0 || g.free != 4 {
			t.Errorf("%d lanes and %d free places are left", len(g.lanes), g.free)
		}
	})
}

// Where all places are taken, servers are let in by turns.
func TestO490_ServersTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1, 1, 1000)
		leave, err := g.enter(t.Context(), "first.example")
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var order []string
		var wg sync.WaitGroup
		for server, n := range map[string]int{"many.example": 100, "few.example": 2, "one.example": 1} {
			for range n {
				wg.Go(func() {
					out, err := g.enter(context.WithoutCancel(t.Context()), matrix.ServerName(server))
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					order = append(order, server)
					mu.Unlock()
					out()
				})
			}
		}
		synctest.Wait()
		leave()
		wg.Wait()
		seen := map[string]int{}
		for i, server := range order {
			if seen[server]++; server != "many.example" && i >= 6 {
				t.Errorf("a request of %s was served as number %d", server, i+1)
			}
		}
		if len(order) != 103 {
			t.Errorf("%d were served", len(order))
		}
	})
}

func TestGate_GivesUpWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1, 1, 10)
		leave, err := g.enter(t.Context(), "a.example")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.enter(t.Context(), "b.example"); err == nil {
			t.Error("let in where there is no place")
		}
		if len(g.lanes) != 1 {
			t.Errorf("%d lanes", len(g.lanes))
		}
		leave()
		if out, err := g.enter(t.Context(), "b.example"); err != nil {
			t.Error(err)
		} else {
			out()
		}
	})
}

func TestO490_BucketPerOrigin(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_800_000_000_000)
	b := ratelimit.New(originBurst, originEvery, func() time.Time { return now })
	for i := range originBurst + 1 {
		if _, ok := b.Take("storm.example"); ok != (i < originBurst) {
			t.Fatalf("request %d: %v", i, ok)
		}
	}
	for i := range 1000 {
		if _, ok := b.Take(fmt.Sprint("server", i, ".example")); !ok {
			t.Error("a server is limited by another")
		}
	}
}

func TestBudget_IsShared(t *testing.T) {
	t.Parallel()
	b := newBudget(100, 60)
	if !b.take("a", 60) || b.take("a", 1) || !b.take("b", 40) || b.take("c", 1) {
		t.Error("the limits do not hold")
	}
	b.give("a", 60)
	if !b.take("c", 60) || len(b.used) != 2 {
		t.Error("what was given back is not there")
	}
}

// A transaction that comes again is answered as before; one that failed is worked on again; one that is under way is waited for.
func TestTransactions_AreIdempotent(t *testing.T) {
	t.Parallel()
	ts := newTransactions(100)
	key := txnKey{as: us, origin: partner, id: "1"}
	calls := 0
	run := func(k txnKey, err error) ([]byte, error) {
		return ts.do(t.Context(), k, func() ([]byte, error) { calls++; return fmt.Append(nil, calls), err })
	}
	if _, err := run(key, errors.New("not now")); err == nil {
		t.Error("no error")
	}
	first, _ := run(key, nil)
	again, _ := run(key, nil)
	if calls != 2 || string(first) != string(again) {
		t.Errorf("%d calls; %s and %s", calls, first, again)
	}
	other := key
	other.origin = "other.example"
	if _, err := run(other, nil); err != nil || calls != 3 {
		t.Errorf("another server's transaction of the same name: %v, %d calls", err, calls)
	}
	other = key
	other.hash[0] = 1
	if _, err := run(other, nil); err != nil || calls != 4 {
		t.Errorf("other content under the same name: %v, %d calls", err, calls)
	}
	for i := range 500 {
		if _, err := run(txnKey{id: fmt.Sprint(i)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(ts.old) + len(ts.young); n > 100 {
		t.Errorf("%d are remembered", n)
	}
	synctest.Test(t, func(t *testing.T) {
		ts := newTransactions(100)
		n := 0
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, err := ts.do(context.Background(), key, func() ([]byte, error) { <-time.After(time.Second); n++; return nil, nil }); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n != 1 {
			t.Errorf("worked on %d times", n)
		}
	})
}
