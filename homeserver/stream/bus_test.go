package stream_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hansa/homeserver/stream"
	"hansa/storage"
	"hansa/storage/storagetest"
)

// A message of another node that meets a bug is lost, and nothing else is: it comes on a goroutine of the NATS client.
func TestD481_MessageThatPanics(t *testing.T) {
	t.Parallel()
	_, addr := startNATS(t, nil)
	o := stream.Options{Storage: storage.Options{URL: storagetest.URL(t, "postgres")}, NATS: "nats://" + addr}
	a, b := openNode(t, o), openNode(t, o)
	connected(t, a, b)
	heard := make(chan string, 1000)
	b.Hear("x", func(m []byte) {
		if string(m) == "poison" {
			_ = explode("boom")
		}
		heard <- string(m)
	})
	eventually(t, "a message behind one that panics", time.Minute, func() bool {
		a.Tell("x", []byte("poison"))
		a.Tell("x", []byte("hello"))
		return len(heard) > 0
	})
	if metric(t, b.metrics, "hansa_stream_job_panics_total", "nats") == 0 {
		t.Error("no panic is counted")
	}
	at := b.Position()
	a.say(t, "x")
	if err := b.Wait(t.Context(), at); err != nil {
		t.Fatal(err)
	}
}

// What other nodes tell is given to nobody before Run: the server that is to hear it is being built.
func TestHear_NotBeforeRun(t *testing.T) {
	t.Parallel()
	_, addr := startNATS(t, nil)
	o := stream.Options{Storage: storage.Options{URL: storagetest.URL(t, "postgres")}, NATS: "nats://" + addr}
	a, c := openNode(t, o), openNode(t, o)
	connected(t, a, c)
	o.Log = storagetest.Quiet()
	built, db, err := stream.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	var runs atomic.Bool
	early, late := make(chan string, 100), make(chan string, 100)
	built.Hear("x", func(m []byte) {
		if runs.Load() {
			late <- string(m)
		} else {
			early <- string(m)
		}
	})
	there := make(chan string, 100)
	c.Hear("x", func(m []byte) { there <- string(m) })
	for range 20 { // over a while in which a connection is made
		a.Tell("x", []byte("early"))
		<-there
		pass(10 * time.Millisecond)
	}
	select {
	case m := <-early:
		t.Errorf("heard %q before Run", m)
	default:
	}
	runs.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := built.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "what is told reaches a node that runs", time.Minute, func() bool { a.Tell("x", []byte("late")); return len(late) > 0 })
	cancel()
	wg.Wait()
}

// Who panics while it holds a lease gives it back: it is run again, and wants it again; and so may other nodes.
func TestD481_HolderThatPanics(t *testing.T) {
	t.Parallel()
	for _, name := range storagetest.Databases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _, r, ctx := running(t, storagetest.URL(t, name))
			ctx, stop := context.WithCancel(ctx)
			defer stop()
			n := 0
			err := s.Keep(ctx, "holder", func(ctx context.Context) error {
				return s.Hold(ctx, "test", func(context.Context, *stream.Lease) error {
					if n++; n == 1 {
						return explode("boom")
					}
					stop()
					return nil
				})
			})
			if err != nil || n != 2 {
				t.Errorf("after %d runs: %v", n, err)
			}
			if p := metric(t, r, "hansa_stream_job_panics_total", "holder"); p != 1 {
				t.Errorf("%v panics are counted, want 1", p)
			}
		})
	}
}
