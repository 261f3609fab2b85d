package storage_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage"
	"hansa/storage/statemap"
	"hansa/storage/storagetest"
)

// onto makes an append that is put on whatever head the room has when its turn comes.
func onto(t *testing.T, r *storage.Room, sender string, n int) *storage.Append {
	t.Helper()
	a := &storage.Append{Room: r}
	build := func(h storage.Head) error {
		e, err := event.Build(r.Version, event.Draft{RoomID: r.ID, Type: "m.test", Sender: matrix.UserID("@" + sender + ":acme.example"),
			Content: fmt.Appendf(nil, `{"n":%d}`, n), PrevEvents: h.Extremities, Depth: h.Depth + 1, OriginServerTS: 1})
		if err != nil {
			return err
		}
		a.Events = []storage.NewEvent{{Event: e}}
		a.Head = storage.Head{Name: string(e.ID), Extremities: []matrix.EventID{e.ID}, Depth: h.Depth + 1, StateRoot: h.StateRoot}
		return nil
	}
	if err := build(r.Head); err != nil {
		t.Fatal(err)
	}
	a.Rebase = build
	return a
}

// Nodes that write into the same rooms are not in each other's way, though none of them hears of the others in between.
func TestTurn_NodesShareRooms(t *testing.T) {
	t.Parallel()
	url := storagetest.URL(t, "postgres")
	ctx := context.Background()
	const nodes, rooms, each = 3, 4, 60
	var heads [rooms]*storage.Room
	var wg sync.WaitGroup
	for n := range nodes {
		db := storagetest.Open(t, storage.Options{URL: url})
		if n == 0 {
			for i := range heads {
				a := newChain(fmt.Sprintf("!%d:acme.example", i)).next(t, "m.test", nil, `{}`)
				if err := db.Append(ctx, a); err != nil {
					t.Fatal(err)
				}
				heads[i] = a.Room
			}
		}
		for i := range rooms {
			wg.Go(func() {
				r := heads[i]
				for k := range each {
					a := onto(t, r, fmt.Sprintf("node%d", n), k)
					if err := db.Append(ctx, a); err != nil {
						t.Errorf("node %d, room %d, event %d: %v", n, i, k, err)
						return
					}
					r = a.Room
				}
			})
		}
	}
	wg.Wait()
	db := storagetest.Open(t, storage.Options{URL: url})
	err := db.View(ctx, func(tx *storage.Tx) error {
		entries, err := tx.ReadLog(0, 10000)
		if len(entries) != rooms+nodes*rooms*each {
			t.Errorf("%d entries, want %d", len(entries), rooms+nodes*rooms*each)
		}
		last := map[matrix.RoomID]*storage.Event{}
		for i, e := range entries {
			if e.Pos != int64(i+1) {
				t.Fatalf("entry %d has position %d", i, e.Pos)
			}
			if before := last[e.RoomID]; before != nil && (len(e.Event.PrevEvents) != 1 || e.Event.PrevEvents[0] != before.ID || e.Event.Depth != before.Depth+1) {
				t.Errorf("event %d of %s does not stand on the one before it", e.Pos, e.RoomID)
			}
			last[e.RoomID] = e.Event
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Where the state has changed meanwhile nothing is put on the new head: the sender has to look again whether it still may.
func TestTurn_NoRebaseOverState(t *testing.T) {
	t.Parallel()
	url := storagetest.URL(t, "postgres")
	one, two := storagetest.Open(t, storage.Options{URL: url}), storagetest.Open(t, storage.Options{URL: url})
	ctx := context.Background()
	first := newChain("!a:acme.example").next(t, "m.test", nil, `{}`)
	if err := one.Append(ctx, first); err != nil {
		t.Fatal(err)
	}
	change := onto(t, first.Room, "anna", 0)
	change.Head.StateRoot = statemap.Hash{1}
	if err := one.Append(ctx, change); err != nil {
		t.Fatal(err)
	}
	if err := two.Append(ctx, onto(t, first.Room, "erik", 0)); !errors.Is(err, storage.ErrConflict) {
		t.Errorf("append over a change of state: %v, want ErrConflict", err)
	}
	if err := two.Append(ctx, onto(t, change.Room, "erik", 0)); err != nil {
		t.Errorf("append after it: %v", err)
	}
}

// Several tables take more rows at once than one statement has.
func TestAppend_ManyRows(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		c := newChain("!a:acme.example")
		a := c.next(t, "m.room.member", ptr("@u0:acme.example"), `{"membership":"join"}`)
		const members = 700
		for i := 1; i < members; i++ {
			b := c.next(t, "m.room.member", ptr(fmt.Sprintf("@u%d:acme.example", i)), `{"membership":"join"}`)
			b.Events[0].TxnScope, b.Events[0].TxnID = "scope", fmt.Sprint(i)
			a.Events, a.State, a.Head = append(a.Events, b.Events...), append(a.State, b.State...), b.Head
		}
		if err := db.Append(ctx, a); err != nil {
			t.Fatal(err)
		}
		err := db.View(ctx, func(tx *storage.Tx) error {
			list, err := tx.LoadMembers("!a:acme.example")
			if len(list) != members {
				t.Errorf("%d members, want %d", len(list), members)
			}
			pos, perr := tx.Position()
			if pos != members {
				t.Errorf("the log is at %d, want %d", pos, members)
			}
			return errors.Join(err, perr)
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestReadNews(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		read := func(after int64, have ...int64) (got []int64, newest int64) {
			t.Helper()
			if err := db.Read(ctx, func(tx *storage.Tx) error {
				entries, n, err := tx.ReadNews(after, append([]int64{}, have...))
				got, newest = nil, n
				for _, e := range entries {
					got = append(got, e.Pos)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			return got, newest
		}
		if got, newest := read(0); got != nil || newest != 0 {
			t.Errorf("an empty log has %v up to %d", got, newest)
		}
		c := newChain("!a:acme.example")
		for range 3 {
			a := c.next(t, "m.test", nil, `{}`)
			if err := db.Append(ctx, a); err != nil {
				t.Fatal(err)
			}
			c.room = a.Room
		}
		if err := db.Update(ctx, func(tx *storage.Tx) error { return tx.Announce("test", "") }); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			after  int64
			have   []int64
			want   string
			newest int64
		}{{0, nil, "[1 2 3]", 4}, {0, []int64{2}, "[1 3]", 4}, {2, nil, "[3]", 4}, {0, []int64{1, 2, 3}, "[]", 0}, {3, nil, "[]", 0}} {
			if got, newest := read(tt.after, tt.have...); fmt.Sprint(got) != tt.want || newest != tt.newest {
				t.Errorf("after %d, with %v: %v up to %d, want %s up to %d", tt.after, tt.have, got, newest, tt.want, tt.newest)
			}
		}
		if err := storage.Tamper(db, `UPDATE events SET json = CAST('{' AS BYTEA) WHERE pos = 2`); err != nil {
			t.Fatal(err)
		}
		if got, newest := read(0); fmt.Sprint(got) != "[1 3]" || newest != 4 {
			t.Errorf("around a damaged event: %v up to %d, want [1 3] up to 4", got, newest)
		}
		if got, _ := read(0, 1, 3); got != nil {
			t.Errorf("a damaged event is read: %v", got)
		}
		var got []int64
		if err := db.View(ctx, func(tx *storage.Tx) error { // of an older time than the mark: not the database has gone back
			if _, err := tx.Position(); err != nil {
				return err
			}
			if err := db.Append(ctx, c.next(t, "m.test", nil, `{}`)); err != nil {
				return err
			}
			entries, _, err := tx.ReadNews(0, []int64{})
			for _, e := range entries {
				got = append(got, e.Pos)
			}
			return err
		}); err != nil || fmt.Sprint(got) != "[1 3]" {
			t.Errorf("on an older snapshot: %v, %v", got, err)
		}
	})
}

// What can wait does not keep anybody waiting who writes into another room, and goes before what is written into the same one.
func TestAppend_Patient(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		patient := func(room string) *storage.Append {
			a := newChain(room).next(t, "m.test", nil, `{}`)
			a.Patient = true
			return a
		}
		if err := db.Append(ctx, patient("!first:acme.example")); err != nil { // alone it is written at once
			t.Fatal(err)
		}
		begun, release, updated := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		go func() {
			updated <- db.UpdateShared(ctx, func(*storage.Tx) error { close(begun); <-release; return nil })
		}()
		<-begun // the writer is busy, and all that follows is there when it has time again
		other, same := patient("!other:acme.example"), patient("!same:acme.example")
		urgent := newChain("!same:acme.example")
		urgent.room = same.Room
		head := *urgent.room
		head.Head = same.Head
		urgent.room = &head
		next := urgent.next(t, "m.test", nil, `{"n":2}`)
		last := newChain("!urgent:acme.example").next(t, "m.test", nil, `{}`)
		var waits []func() error
		for _, a := range []*storage.Append{other, same, next, last} {
			wait, err := db.Pending(ctx, a)
			if err != nil {
				t.Fatal(err)
			}
			waits = append(waits, wait)
		}
		close(release)
		for _, wait := range append(waits, func() error { return <-updated }) {
			if err := wait(); err != nil {
				t.Error(err)
			}
		}
		if t.Failed() {
			return
		}
		if a, b, c, d := same.Stored[0].Pos, next.Stored[0].Pos, last.Stored[0].Pos, other.Stored[0].Pos; !(a < b && b < c && c < d) {
			t.Errorf("positions: same %d, next %d, urgent %d, other %d; want them in this order", a, b, c, d)
		}
	})
}

// Beside other nodes a batch becomes about as large as batches are, if what is needed for that comes; it goes alone if nothing comes, and at
// once if batches are small.
func TestGather(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // in which no time passes while there is something to take
		for _, test := range []struct{ usual, batch, others, want int }{
			{8, 1, 20, 6}, {8, 5, 20, 6}, {8, 6, 20, 6}, {8, 7, 20, 7}, // up to three quarters
			{8, 1, 2, 3}, {8, 1, 0, 1}, // what there is
			{1, 1, 20, 1}, {0, 1, 20, 1},
			{5000, 1, 400, 192}, // never more than a batch may hold
		} {
			if got := storage.Gather(test.usual, test.batch, test.others); got != test.want {
				t.Errorf("a batch of %d where %d are usual and %d are waiting becomes %d, want %d", test.batch, test.usual, test.others, got, test.want)
			}
		}
	})
}
