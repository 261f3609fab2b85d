package stream

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Spread calls fn for each number below n, so many at a time. Others get their turn after each call, so that a large piece of work does not
// keep everybody else waiting. A panic in one of the calls goes on in the caller, where the request or the job ends by it.
func Spread(n, workers int, fn func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	var bug atomic.Pointer[error]
	for range min(n, workers) {
		wg.Go(func() {
			err := Guard(func() error {
				for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
					fn(i)
					runtime.Gosched()
				}
				return nil
			})
			if err != nil {
				bug.Store(&err)
			}
		})
	}
	wg.Wait()
	if err := bug.Load(); err != nil {
		panic(*err)
	}
}

// Flight does something once for all who want it at the same time. It goes on where one of them leaves, and a panic in it is the error of all
// of them. The zero value is ready to use.
type Flight[T any] struct {
	mu    sync.Mutex
	going map[string]*Flown[T] // guarded by mu
}

// Flown is something that is done for all who want it.
type Flown[T any] struct {
	done  chan struct{}
	value T
	err   error
}

// Done is closed when it is done.
func (f *Flown[T]) Done() <-chan struct{} { return f.done }

// Result is what has come out, once it is done.
func (f *Flown[T]) Result() (T, error) { return f.value, f.err }

// Start begins something, or joins those who wait for it. The context that fn gets has the values of that of the first of them, and ends
// after limit.
func (f *Flight[T]) Start(ctx context.Context, key string, limit time.Duration, fn func(context.Context) (T, error)) *Flown[T] {
	f.mu.Lock()
	defer f.mu.Unlock()
	if going := f.going[key]; going != nil {
		return going
	}
	o := &Flown[T]{done: make(chan struct{})}
	if f.going == nil {
		f.going = map[string]*Flown[T]{}
	}
	f.going[key] = o
	go func() {
		defer func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			delete(f.going, key)
			close(o.done)
		}()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		o.err = Guard(func() (err error) { o.value, err = fn(ctx); return err })
	}()
	return o
}

// Do is Start for those who wait until it is done or their own context ends.
func (f *Flight[T]) Do(ctx context.Context, key string, limit time.Duration, fn func(context.Context) (T, error)) (T, error) {
	o := f.Start(ctx, key, limit, fn)
	select {
	case <-o.Done():
		return o.Result()
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// Pause waits, and returns false when ctx ends before.
func Pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
