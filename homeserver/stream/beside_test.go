package stream_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hansa/homeserver/stream"
)

func TestSpread_CallsEachOnce(t *testing.T) {
	t.Parallel()
	var seen [100]atomic.Int32
	var now, most atomic.Int32
	stream.Spread(len(seen), 4, func(i int) {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		seen[i].Add(1)
		now.Add(-1)
	})
	for i := range seen {
		if n := seen[i].Load(); n != 1 {
			t.Errorf("%d was called %d times", i, n)
		}
	}
	if n := most.Load(); n > 4 {
		t.Errorf("%d at a time, want at most 4", n)
	}
}

// A panic beside a request ends the request, not the process.
func TestD481_SpreadPanicsInTheCaller(t *testing.T) {
	t.Parallel()
	err := stream.Guard(func() error {
		stream.Spread(10, 3, func(i int) {
			if i == 7 {
				panic("a bug")
			}
		})
		return nil
	})
	if e := (*stream.PanicError)(nil); !errors.As(err, &e) {
		t.Errorf("%v, want the panic", err)
	}
}

func TestFlight_OnceForAll(t *testing.T) {
	t.Parallel()
	var f stream.Flight[int]
	var calls atomic.Int32
	release := make(chan struct{})
	work := func(ctx context.Context) (int, error) {
		calls.Add(1)
		<-release
		return 7, ctx.Err()
	}
	first, leave := context.WithCancel(t.Context())
	o := f.Start(first, "a", time.Hour, work)
	leave() // it goes on for the others
	if _, err := f.Do(first, "a", time.Hour, work); !errors.Is(err, context.Canceled) {
		t.Errorf("one who has left: %v", err)
	}
	var wg sync.WaitGroup
	for range 5 {
		joined := f.Start(t.Context(), "a", time.Hour, work)
		wg.Go(func() {
			<-joined.Done()
			if n, err := joined.Result(); n != 7 || err != nil {
				t.Errorf("%d, %v, want 7", n, err)
			}
		})
	}
	close(release)
	wg.Wait()
	<-o.Done()
	if n := calls.Load(); n != 1 {
		t.Errorf("done %d times, want once", n)
	}
	if n, err := f.Do(t.Context(), "a", time.Hour, work); n != 7 || err != nil || calls.Load() != 2 {
		t.Errorf("after the first: %d, %v, done %d times", n, err, calls.Load())
	}
}

// A panic is the error of those who wait, and the next one begins anew.
func TestD481_FlightThatPanics(t *testing.T) {
	t.Parallel()
	var f stream.Flight[int]
	for i := range 2 {
		_, err := f.Do(t.Context(), "a", time.Hour, func(context.Context) (int, error) { panic("bug " + strconv.Itoa(i)) })
		if e := (*stream.PanicError)(nil); !errors.As(err, &e) || e.Value != "bug "+strconv.Itoa(i) {
			t.Errorf("%v, want the panic", err)
		}
	}
	if n, err := f.Do(t.Context(), "a", time.Hour, func(context.Context) (int, error) { return 1, nil }); n != 1 || err != nil {
		t.Errorf("after the panics: %d, %v", n, err)
	}
}
