package stream_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa/homeserver/stream"
	"hansa/storage"
	"hansa/storage/storagetest"
)

func explode(s string) error { panic(s) }

// A panic becomes an error that says where it was.
func TestD481_Guard(t *testing.T) {
	t.Parallel()
	err := stream.Guard(func() error { return explode("boom") })
	var p *stream.PanicError
	if !errors.As(err, &p) || p.Value != "boom" || !strings.HasSuffix(p.Place, "stream_test.explode") || !strings.Contains(p.Stack, "panic_test.go") {
		t.Errorf("guarded: %+v", err)
	}
	if err := stream.Guard(func() error { return nil }); err != nil {
		t.Errorf("without a panic: %v", err)
	}
}

// metric is the value of a metric for a job.
func metric(t *testing.T, r *prometheus.Registry, name, job string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && m.GetLabel()[0].GetValue() == job {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

func running(t *testing.T, url string) (*stream.Stream, *storage.DB, *prometheus.Registry, context.Context) {
	t.Helper()
	r := prometheus.NewRegistry()
	s, db, err := stream.Open(context.Background(), stream.Options{Storage: storage.Options{URL: url, Log: storagetest.Quiet()}, Log: storagetest.Quiet(), Registerer: r})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, db.Close()); err != nil {
			t.Error(err)
		}
	})
	return s, db, r, ctx
}

// await waits for something that other goroutines bring about.
func await(t *testing.T, what string, fn func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !fn(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("in vain: " + what)
		}
	}
}

// A follower that panics over an entry is tried again, later each time, and switched off the third time, with a metric. The others go on.
func TestD481_FollowerThatPanics(t *testing.T) {
	t.Parallel()
	for _, name := range storagetest.Databases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, db, r, ctx := running(t, storagetest.URL(t, name))
			var tries, good atomic.Int64
			ends := make(chan error, 2)
			ctx, stop := context.WithCancel(ctx)
			go func() {
				ends <- s.Follow(ctx, stream.Follower{Name: "bad", Handle: func(context.Context, []storage.Entry, int64) error { tries.Add(1); return explode("poison") }})
			}()
			go func() {
				ends <- s.Follow(ctx, stream.Follower{Name: "good", Handle: func(_ context.Context, list []storage.Entry, _ int64) error { good.Add(int64(len(list))); return nil }})
			}()
			announce := func() {
				if err := db.Update(context.Background(), func(tx *storage.Tx) error { return tx.Announce("test", "x") }); err != nil {
					t.Fatal(err)
				}
			}
			announce()
			await(t, "the follower to be switched off", func() bool { return metric(t, r, "hansa_stream_jobs_disabled_bool", "bad") == 1 })
			announce()
			await(t, "the other follower", func() bool { return good.Load() >= 2 }) // more where the lease is lost in between
			if n := tries.Load(); n != 3 {
				t.Errorf("the follower ran %d times, want 3", n)
			}
			if n := metric(t, r, "hansa_stream_job_panics_total", "bad"); n != 3 {
				t.Errorf("%v panics are counted, want 3", n)
			}
			if metric(t, r, "hansa_stream_jobs_disabled_bool", "good") != 0 {
				t.Error("the other follower is switched off")
			}
			stop()
			for range 2 {
				if err := <-ends; err != nil {
					t.Errorf("a follower ended with %v", err)
				}
			}
		})
	}
}

// A job that panics is run again; one that works in between, or panics in different ways, is not switched off.
func TestD481_Keep(t *testing.T) {
	t.Parallel()
	s, _, r, ctx := running(t, storagetest.URL(t, "sqlite"))
	n := 0
	err := s.Keep(ctx, "varied", func(context.Context) error {
		if n++; n < 5 {
			return explode(strings.Repeat("x", n))
		}
		return errors.New("an ordinary end")
	})
	if err == nil || err.Error() != "an ordinary end" || n != 5 {
		t.Errorf("after %d runs: %v", n, err)
	}
	runs := atomic.Int64{}
	kept, cancel := context.WithCancel(ctx)
	end := make(chan error, 1)
	go func() {
		end <- s.Keep(kept, "same", func(context.Context) error { runs.Add(1); return explode("same") })
	}()
	await(t, "the job to be switched off", func() bool { return metric(t, r, "hansa_stream_jobs_disabled_bool", "same") == 1 })
	cancel()
	if err := <-end; err != nil || runs.Load() != 3 {
		t.Errorf("after %d runs: %v", runs.Load(), err)
	}
}
