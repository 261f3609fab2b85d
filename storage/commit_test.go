package storage_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"hansa/storage"
	"hansa/storage/storagetest"
)

// A caller who makes nothing of a statement's error is not told that the rest is stored where the database has thrown it away.
func TestUpdate_NoSilentRollback(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		err := db.Update(ctx, func(tx *storage.Tx) error {
			if err := tx.PutAccountData(storage.AccountData{UserID: "@anna:acme.example", Type: "a", Content: []byte(`{}`)}); err != nil {
				return err
			}
			if err := tx.SetCursor("twice", 1); err != nil {
				return err
			}
			if storage.Exec(tx, `INSERT INTO cursors (name, pos) VALUES ('twice', 2)`) == nil {
				t.Error("a second row with the same key is stored")
			}
			return nil
		})
		got := db.Read(ctx, func(tx *storage.Tx) error { _, err := tx.LoadAccountDatum("@anna:acme.example", "", "a"); return err })
		if (err == nil) != (got == nil) {
			t.Errorf("the update is told %v, and what it wrote: %v", err, got)
		}
	})
}

// Transactions that PostgreSQL ends because of one another are tried again, a bounded number of times.
func TestD455_SerializationAndDeadlock(t *testing.T) {
	t.Parallel()
	db := storagetest.Open(t, storage.Options{URL: storagetest.URL(t, "postgres")})
	ctx := context.Background()
	const failure = `DO $$ BEGIN RAISE EXCEPTION 'made by the test' USING ERRCODE = '40001'; END $$`
	t.Run("serialization failures end", func(t *testing.T) {
		t.Parallel()
		tries := 0
		err := db.Update(ctx, func(tx *storage.Tx) error {
			if tries++; tries <= 3 {
				return storage.Exec(tx, failure)
			}
			return tx.SetCursor("serialized", 1)
		})
		if err != nil || tries != 4 {
			t.Errorf("update: %v after %d tries", err, tries)
		}
		tries = 0
		c := newChain("!serialized:acme.example")
		a := c.next(t, "m.test", nil, `{}`)
		a.Also = func(tx *storage.Tx) error {
			if tries++; tries <= 3 {
				return storage.Exec(tx, failure)
			}
			return nil
		}
		if err := db.Append(ctx, a); err != nil || tries != 4 {
			t.Errorf("append: %v after %d tries", err, tries)
		}
	})
	t.Run("serialization failures without end", func(t *testing.T) {
		t.Parallel()
		began := time.Now()
		err := db.Update(ctx, func(tx *storage.Tx) error { return storage.Exec(tx, failure) })
		if !errors.Is(err, storage.ErrUnavailable) || time.Since(began) > 10*time.Second {
			t.Errorf("update: %v after %v, want ErrUnavailable", err, time.Since(began))
		}
		a := newChain("!never:acme.example").next(t, "m.test", nil, `{}`)
		a.Also = func(tx *storage.Tx) error { return storage.Exec(tx, failure) }
		if err := db.Append(ctx, a); !errors.Is(err, storage.ErrUnavailable) || time.Since(began) > 20*time.Second {
			t.Errorf("append: %v after %v, want ErrUnavailable", err, time.Since(began))
		}
		if err := db.Append(ctx, newChain("!after:acme.example").next(t, "m.test", nil, `{}`)); err != nil {
			t.Errorf("the next append: %v", err)
		}
	})
	t.Run("deadlock", func(t *testing.T) {
		t.Parallel()
		if err := db.Update(ctx, func(tx *storage.Tx) error { return errors.Join(tx.SetCursor("a", 1), tx.SetCursor("b", 1)) }); err != nil {
			t.Fatal(err)
		}
		var both sync.WaitGroup
		both.Add(2)
		lock := func(first, second string, pos int64) error {
			met := false
			return db.Update(ctx, func(tx *storage.Tx) error {
				if err := tx.SetCursor(first, pos); err != nil {
					return err
				}
				if !met { // each holds one lock now and wants the other's
					met = true
					both.Done()
					both.Wait()
				}
				return tx.SetCursor(second, pos)
			})
		}
		var one, two error
		var wait sync.WaitGroup
		wait.Go(func() { one = lock("a", "b", 2) })
		wait.Go(func() { two = lock("b", "a", 3) })
		wait.Wait()
		if one != nil || two != nil {
			t.Errorf("two in each other's way: %v, %v", one, two)
		}
		var a, b int64
		err := db.View(ctx, func(tx *storage.Tx) (err error) {
			if a, err = tx.LoadCursor("a"); err == nil {
				b, err = tx.LoadCursor("b")
			}
			return err
		})
		if err != nil || a != 3 || b != 3 {
			t.Errorf("cursors are %d and %d, want 3 and 3: %v", a, b, err)
		}
	})
}
