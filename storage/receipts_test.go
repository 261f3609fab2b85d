package storage_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"

	"hansa/matrix"
	"hansa/storage"
	"hansa/storage/storagetest"
)

func TestChangeAccountData_NeverOverlaps(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		const user, room = matrix.UserID("@anna:acme.example"), matrix.RoomID("!a:acme.example")
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for range 5 {
					err := db.Update(t.Context(), func(tx *storage.Tx) error {
						return tx.ChangeAccountData(user, room, "n", func(old []byte) ([]byte, error) {
							n, _ := strconv.Atoi(string(old))
							return []byte(strconv.Itoa(n + 1)), nil
						})
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		refused := errors.New("refused")
		for name, fn := range map[string]func([]byte) ([]byte, error){
			"nothing": func([]byte) ([]byte, error) { return nil, nil },
			"error":   func([]byte) ([]byte, error) { return []byte("0"), refused },
		} {
			err := db.Update(t.Context(), func(tx *storage.Tx) error { return tx.ChangeAccountData(user, room, "n", fn) })
			if (name == "error") != errors.Is(err, refused) {
				t.Errorf("%s: %v", name, err)
			}
		}
		err := db.View(t.Context(), func(tx *storage.Tx) error {
			d, err := tx.LoadAccountDatum(user, room, "n")
			if string(d.Content) != "80" || d.Pos != 80 {
				t.Errorf("datum %s at %d, want 80 at 80", d.Content, d.Pos)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestFindReceipt(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		c := newChain("!a:acme.example")
		first := c.next(t, "m.room.message", nil, `{}`)
		if err := db.Append(ctx, first); err != nil {
			t.Fatal(err)
		}
		e := first.Stored[0]
		r := storage.Receipt{RoomID: "!a:acme.example", UserID: "@an\x00na:acme.example", Type: "m.read", ThreadID: "main", EventID: e.ID, EventPos: e.Pos, TS: 7}
		err := db.Update(ctx, func(tx *storage.Tx) error {
			_, err := tx.PutReceipt(r)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		err = db.View(ctx, func(tx *storage.Tx) error {
			got, ok, err := tx.FindReceipt(r.RoomID, r.UserID, "m.read", "main")
			r.Pos = e.Pos + 1
			if err != nil || !ok || got != r {
				t.Errorf("%+v, %v, %v; want %+v", got, ok, err, r)
			}
			for _, other := range [][2]string{{"m.read", ""}, {"m.read.private", "main"}} {
				if _, ok, err := tx.FindReceipt(r.RoomID, r.UserID, other[0], other[1]); ok || err != nil {
					t.Errorf("%q: found, %v", other, err)
				}
			}
			_, ok, err = tx.FindReceipt("!b:acme.example", r.UserID, "m.read", "main")
			if ok {
				t.Error("found in another room")
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestSetFlags(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		a := newChain("!a:acme.example").next(t, "m.room.message", nil, `{}`)
		if err := db.Append(ctx, a); err != nil {
			t.Fatal(err)
		}
		id := a.Stored[0].ID
		for _, step := range []struct{ set, clear, want storage.Flags }{
			{storage.Withheld, 0, storage.Withheld},
			{storage.Backfilled, storage.Rejected, storage.Withheld | storage.Backfilled},
			{0, storage.Withheld, storage.Backfilled},
		} {
			err := db.Update(ctx, func(tx *storage.Tx) error { return tx.SetFlags(id, step.set, step.clear) })
			if err != nil {
				t.Fatal(err)
			}
			err = db.Read(ctx, func(tx *storage.Tx) error {
				e, err := tx.LoadEvent(id)
				if err == nil && e.Flags != step.want {
					t.Errorf("flags %b, want %b", e.Flags, step.want)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
	})
}
