package stream_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage"
	"hansa/storage/storagetest"
)

// writing is a room that one test goroutine writes into.
type writing struct {
	db   *storage.DB
	room *storage.Room
}

func newWriting(db *storage.DB, id string) *writing {
	v, _ := matrix.FindRoomVersion("11")
	return &writing{db, &storage.Room{ID: matrix.RoomID(id), Version: v, Tenant: "acme.example"}}
}

// events appends n events in one transaction.
func (w *writing) events(n int) error {
	a := &storage.Append{Room: w.room, Head: w.room.Head}
	for range n {
		e, err := event.Build(w.room.Version, event.Draft{RoomID: w.room.ID, Type: "m.test", Sender: "@anna:acme.example", Content: []byte(`{}`),
			PrevEvents: a.Head.Extremities, Depth: a.Head.Depth + 1, OriginServerTS: 1})
		if err != nil {
			return err
		}
		a.Events = append(a.Events, storage.NewEvent{Event: e})
		a.Head = storage.Head{Name: string(e.ID), Extremities: []matrix.EventID{e.ID}, Depth: a.Head.Depth + 1}
	}
	err := w.db.Append(context.Background(), a)
	w.room = a.Room
	return err
}

// others puts a notice and a receipt into the log; the receipt leaves a hole where the one before it was.
func (w *writing) others(i int) error {
	return w.db.Update(context.Background(), func(tx *storage.Tx) error {
		_, err := tx.PutReceipt(storage.Receipt{RoomID: w.room.ID, UserID: "@anna:acme.example", Type: "m.read", EventID: "$x", EventPos: int64(i + 1), TS: 1})
		return errors.Join(err, tx.Announce("n", fmt.Sprint(i)))
	})
}

// told is what somebody hears who reads the stream from the beginning up to a position. Receipts are left out: one that was replaced is
// heard of or not.
func told(t *testing.T, s *stream.Stream, upto int64) (got []string) {
	t.Helper()
	last := int64(0)
	for pos := int64(0); pos < upto; {
		if err := s.Wait(context.Background(), pos); err != nil {
			t.Fatal(err)
		}
		es, to, err := s.Read(context.Background(), pos)
		if err != nil || to <= pos {
			t.Fatalf("read after %d: up to %d, %v", pos, to, err)
		}
		for _, e := range es {
			if e.Pos <= last || e.Pos > to {
				t.Fatalf("entry %d comes after %d, in a range up to %d", e.Pos, last, to)
			}
			if last = e.Pos; e.Pos <= upto && e.Kind != storage.KindReceipt {
				got = append(got, line(e))
			}
		}
		pos = to
	}
	return got
}

func line(e storage.Entry) string {
	if e.Event != nil {
		return fmt.Sprint(e.Pos, " ", e.Event.ID)
	}
	return fmt.Sprint(e.Pos, " ", e.Name, " ", e.Ref)
}

// stored is the same as the database has it.
func stored(t *testing.T, db *storage.DB) (want []string, upto int64) {
	t.Helper()
	err := db.View(context.Background(), func(tx *storage.Tx) (err error) {
		if upto, err = tx.Position(); err != nil {
			return err
		}
		es, err := tx.ReadLog(0, upto)
		for _, e := range es {
			if e.Kind != storage.KindReceipt {
				want = append(want, line(e))
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return want, upto
}

// The faster the log moves, the longer a node rests between two looks, up to a limit, and what is rare is not kept waiting.
func TestRest(t *testing.T) {
	t.Parallel()
	const least = 8 * time.Millisecond
	for perSecond, want := range map[int64]time.Duration{0: least, 10: least, 900: least, 1200: 40 * time.Millisecond, 3000: 40 * time.Millisecond} {
		apart := least
		for range 30 { // each rest is as long as what came in the one before it asks for
			apart = stream.Rest((perSecond*apart.Microseconds()+999_999)/1_000_000, least)
		}
		if apart != want {
			t.Errorf("at %d positions a second it rests for %v, want %v", perSecond, apart, want)
		}
	}
}

// A node that was behind takes in what the others have written: more than one look brings, with other entries and holes between the events,
// and around what it has written itself.
func TestCatchUp_FarBehind(t *testing.T) {
	t.Parallel()
	url := storagetest.URL(t, "postgres")
	_, far := open(t, url)
	// Nothing but what is asked for makes this one look.
	s, db, err := stream.Open(context.Background(), stream.Options{Storage: storage.Options{URL: url}, Log: storagetest.Quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	theirs, ours := newWriting(far, "!theirs:acme.example"), newWriting(db, "!ours:acme.example")
	look := func() {
		t.Helper()
		pos, err := s.CatchUp(context.Background())
		want, upto := stored(t, db)
		if err != nil || pos != upto {
			t.Fatalf("after a look the stream is at %d, want %d: %v", pos, upto, err)
		}
		if diff := cmp.Diff(want, told(t, s, upto)); diff != "" {
			t.Fatalf("what the database has and what is told (-/+):\n%s", diff)
		}
	}
	write := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	write(theirs.events(3), theirs.others(0))
	look()
	write(theirs.events(2), ours.events(3), theirs.others(1), ours.events(1), theirs.events(4), ours.others(0), theirs.events(1))
	look()
	write(theirs.others(2), ours.events(600), theirs.events(5))
	look()
	write(theirs.events(700), theirs.others(3), theirs.events(700), theirs.others(4), ours.events(2))
	look()
	write(theirs.others(5))
	look()
}

// Nodes that write at the same time, and look whenever they like, tell the same.
func TestCatchUp_NodesTellTheSame(t *testing.T) {
	t.Parallel()
	url := storagetest.URL(t, "postgres")
	var nodes []*stream.Stream
	var db *storage.DB
	var writers, lookers sync.WaitGroup
	stop := make(chan struct{})
	for n := range 2 {
		var s *stream.Stream
		s, db = open(t, url)
		nodes = append(nodes, s)
		for k := range 3 {
			w := newWriting(db, fmt.Sprintf("!%d-%d:acme.example", n, k))
			writers.Go(func() {
				for i := range 60 {
					err := w.events(1 + (i*7+k)%9)
					if err == nil && i%3 == k {
						err = w.others(i)
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		lookers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := s.CatchUp(context.Background()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	lookers.Wait()
	want, upto := stored(t, db)
	for n, s := range nodes {
		if diff := cmp.Diff(want, told(t, s, upto)); diff != "" {
			t.Errorf("what the database has and what node %d tells (-/+):\n%s", n, diff)
		}
	}
}
