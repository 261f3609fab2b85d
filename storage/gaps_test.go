package storage_test

import (
	"context"
	"slices"
	"testing"

	"hansa/matrix"
	"hansa/storage"
	"hansa/storage/storagetest"
)

// What is missing before an event has its place kept free: it comes there later, the newest first, is no news, and what there is no room for
// comes before everything else.
func TestAppend_HolesAreFilledFromTheTop(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		c := newChain("!a:acme.example")
		write := func(change func(*storage.NewEvent), hole storage.Hole) *storage.Event {
			a := c.next(t, "m.test", nil, `{}`)
			a.Hole = hole
			change(&a.Events[0])
			must(t, db.Append(ctx, a))
			c.room = a.Room
			return a.Stored[0]
		}
		plain := func(*storage.NewEvent) {}
		before := write(plain, storage.NoHole)
		above := write(func(n *storage.NewEvent) { n.Missing, n.Ahead, n.Flags = []matrix.EventID{"$lost"}, 3, storage.Gapped }, storage.NoHole)
		after := write(plain, storage.NoHole)
		if above.Pos != before.Pos+4 || after.Pos != above.Pos+1 {
			t.Fatalf("positions %d, %d, %d", before.Pos, above.Pos, after.Pos)
		}
		var hole storage.Hole
		find := func(upto int64) (top int64, ok bool) {
			must(t, db.View(ctx, func(tx *storage.Tx) (err error) {
				hole, top, ok, err = tx.FindHole("!a:acme.example", upto)
				return err
			}))
			return top, ok
		}
		if top, ok := find(after.Pos); !ok || top != above.Pos || hole != storage.Hole(before.Pos+1) {
			t.Fatalf("the hole is found at %d below %d: %t", hole, top, ok)
		}
		in := hole
		if _, ok := find(before.Pos); ok {
			t.Error("a hole is found below what was before it")
		}
		var got []int64
		for range 4 {
			e := write(func(n *storage.NewEvent) { n.Missing, n.Flags = []matrix.EventID{"$earlier"}, storage.Backfilled }, in)
			if got = append(got, e.Pos); e.Pos > 0 {
				if top, ok := find(after.Pos); !ok || hole != in || top != above.Pos {
					t.Errorf("after %d events the hole is found at %d below %d: %t", len(got), hole, top, ok)
				}
			}
		}
		if want := []int64{above.Pos - 1, above.Pos - 2, above.Pos - 3}; !slices.Equal(got[:3], want) || got[3] >= 0 {
			t.Errorf("the events of the hole came to %v, want %v and something below all", got, want)
		}
		must(t, db.View(ctx, func(tx *storage.Tx) error {
			entries, err := tx.ReadLog(0, after.Pos)
			if len(entries) != 3 {
				t.Errorf("%d entries in the log, want 3: history is no news", len(entries))
			}
			page, perr := tx.LoadPage("!a:acme.example", after.Pos, storage.Backward, 10)
			must(t, perr)
			var order []int64
			for _, e := range page {
				order = append(order, e.Pos)
			}
			if want := []int64{after.Pos, above.Pos, got[0], got[1], got[2], before.Pos, got[3]}; !slices.Equal(order, want) {
				t.Errorf("a page goes back by %v, want %v", order, want)
			}
			news, _, nerr := tx.ReadNews(0, []int64{})
			must(t, nerr)
			if len(news) != 3 {
				t.Errorf("%d events are news, want 3", len(news))
			}
			return err
		}))
	})
}
