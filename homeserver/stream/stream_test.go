package stream_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"hansa/homeserver/stream"
	"hansa/storage"
	"hansa/storage/storagetest"
)

func open(t *testing.T, url string) (*stream.Stream, *storage.DB) {
	t.Helper()
	s, db, err := stream.Open(context.Background(), stream.Options{Storage: storage.Options{URL: url}, Log: storagetest.Quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return s, db
}

// Whoever reads with a cursor sees every position once and in order, however many transactions write at a time.
func TestRead_SeesEveryEntryInOrder(t *testing.T) {
	t.Parallel()
	for _, name := range storagetest.Databases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, db := open(t, storagetest.URL(t, name))
			const writers, each = 8, 40
			var wg sync.WaitGroup
			for w := 0; w < writers; w++ {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for i := 0; i < each; i++ {
						err := db.Update(context.Background(), func(tx *storage.Tx) error { return tx.Announce("n", fmt.Sprint(w, "-", i)) })
						if err != nil {
							t.Error(err)
						}
					}
				}()
			}
			var pos int64
			next := map[string]int{}
			for n := 0; n < writers*each; {
				if err := s.Wait(context.Background(), pos); err != nil {
					t.Fatal(err)
				}
				es, upto, err := s.Read(context.Background(), pos)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range es {
					if e.Pos != pos+1 {
						t.Fatalf("entry %d follows position %d", e.Pos, pos)
					}
					var w, i int
					if _, err := fmt.Sscanf(e.Ref, "%d-%d", &w, &i); err != nil {
						t.Fatal(err)
					}
					if i != next[fmt.Sprint(w)] {
						t.Fatalf("writer %d: entry %d, want %d", w, i, next[fmt.Sprint(w)])
					}
					next[fmt.Sprint(w)]++
					pos, n = e.Pos, n+1
				}
				pos = upto
			}
			wg.Wait()
		})
	}
}

// A second node hears of what the first one writes without being told.
func TestRun_HearsOfOtherNodes(t *testing.T) {
	t.Parallel()
	url := storagetest.URL(t, "postgres")
	_, db := open(t, url)
	other, _ := open(t, url)
	if err := db.Update(context.Background(), func(tx *storage.Tx) error { return tx.Announce("n", "hello") }); err != nil {
		t.Fatal(err)
	}
	if err := other.Wait(context.Background(), 0); err != nil {
		t.Fatal(err)
	}
	es, _, err := other.Read(context.Background(), 0)
	if err != nil || len(es) != 1 || es[0].Ref != "hello" {
		t.Errorf("the other node read %v, %v", es, err)
	}
}

// A follower goes on where it stopped, and gets again what it failed at.
func TestFollow_ResumesAndRetries(t *testing.T) {
	t.Parallel()
	s, db := open(t, storagetest.URL(t, "sqlite"))
	say := func(ref string) {
		if err := db.Update(context.Background(), func(tx *storage.Tx) error { return tx.Announce("n", ref) }); err != nil {
			t.Fatal(err)
		}
	}
	run := func(fail bool, until string) []string {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var got []string
		err := s.Follow(ctx, stream.Follower{Name: "test", Handle: func(_ context.Context, es []storage.Entry, _ int64) error {
			if fail {
				fail = false
				return fmt.Errorf("once")
			}
			for _, e := range es {
				if got = append(got, e.Ref); e.Ref == until {
					cancel()
				}
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	say("a")
	say("b")
	if got := run(true, "b"); fmt.Sprint(got) != "[a b]" {
		t.Errorf("first run got %v", got)
	}
	say("c")
	if got := run(false, "c"); fmt.Sprint(got) != "[c]" {
		t.Errorf("second run got %v, want only what is new", got)
	}
}
