package storage_test

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"hansa/matrix"
	"hansa/storage"
	"hansa/storage/storagetest"
)

func update(t *testing.T, db *storage.DB, fn func(*storage.Tx) error) {
	t.Helper()
	if err := db.Update(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

// A lease has one holder; who has lost it cannot write any more.
func TestD470_LeaseIsFenced(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		take := func(node string, ttl time.Duration) (epoch int64, ok bool) {
			update(t, db, func(tx *storage.Tx) (err error) { epoch, ok, err = tx.TakeLease("x", node, ttl); return err })
			return epoch, ok
		}
		if epoch, ok := take("a", time.Hour); !ok || epoch != 1 {
			t.Fatalf("the first take: epoch %d, %v", epoch, ok)
		}
		if _, ok := take("b", time.Hour); ok {
			t.Fatal("a lease was taken that is held")
		}
		a := storage.Lease{Name: "x", Node: "a", Epoch: 1}
		update(t, db, func(tx *storage.Tx) error { return tx.Fence(a) })
		update(t, db, func(tx *storage.Tx) error { // as if the time were over
			held, err := tx.RenewLeases("a", -time.Second)
			if held["x"] != 1 {
				t.Errorf("renewed %v", held)
			}
			return err
		})
		if epoch, ok := take("b", time.Hour); !ok || epoch != 2 {
			t.Fatalf("the take after the time was over: epoch %d, %v", epoch, ok)
		}
		err := db.Update(context.Background(), func(tx *storage.Tx) error {
			if err := tx.Fence(a); err != nil {
				return err
			}
			return tx.SetCursor("x", 77)
		})
		var pos int64
		update(t, db, func(tx *storage.Tx) (err error) { pos, err = tx.LoadCursor("x"); return err })
		if !errors.Is(err, storage.ErrNotHeld) || pos != 0 {
			t.Errorf("the fenced write of the former holder: %v, cursor at %d", err, pos)
		}
		update(t, db, func(tx *storage.Tx) error {
			held, err := tx.RenewLeases("a", time.Hour)
			if len(held) != 0 {
				t.Errorf("the former holder renewed %v", held)
			}
			return errors.Join(err, tx.FreeLease(a)) // not a's to free
		})
		if _, ok := take("c", time.Hour); ok {
			t.Error("the former holder gave away what another holds")
		}
		update(t, db, func(tx *storage.Tx) error { return tx.FreeLease(storage.Lease{Name: "x", Node: "b", Epoch: 2}) })
		if epoch, ok := take("c", time.Hour); !ok || epoch != 3 {
			t.Errorf("the take after the lease was given back: epoch %d, %v", epoch, ok)
		}
	})
}

func TestLoadLivingNodes_ShowsTheLiving(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		living := storage.Node{ID: "a", Host: "one", Revision: "r2", Tenants: []matrix.ServerName{"acme.example"}}
		update(t, db, func(tx *storage.Tx) error {
			return errors.Join(tx.TouchNode(storage.Node{ID: "a", Host: "one", Revision: "r1"}, time.Hour), tx.TouchNode(storage.Node{ID: "b", Host: "two"}, -time.Second),
				tx.TouchNode(living, time.Hour))
		})
		var list []storage.Node
		update(t, db, func(tx *storage.Tx) (err error) { list, err = tx.LoadLivingNodes(); return err })
		if len(list) != 1 || !reflect.DeepEqual(list[0], living) {
			t.Errorf("living nodes %+v", list)
		}
		var first, second storage.Cell
		update(t, db, func(tx *storage.Tx) (err error) { first, err = tx.LoadCell(); return err })
		update(t, db, func(tx *storage.Tx) (err error) { second, err = tx.LoadCell(); return err })
		if first.Name == "" || first.Name != second.Name || len(first.Secret) != 32 || string(first.Secret) != string(second.Secret) {
			t.Errorf("the cell is %+v, then %+v", first, second)
		}
	})
}
