package storage_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"hansa/matrix"
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
		if !errors.Is(err, storage.ErrUnavailable) || time.Since(began) > time.Minute {
			t.Errorf("update: %v after %v, want ErrUnavailable", err, time.Since(began))
		}
		a := newChain("!never:acme.example").next(t, "m.test", nil, `{}`)
		a.Also = func(tx *storage.Tx) error { return storage.Exec(tx, failure) }
		if err := db.Append(ctx, a); !errors.Is(err, storage.ErrUnavailable) || time.Since(began) > 2*time.Minute {
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

// Updates of many callers share transactions, and each of them is done once or refused alone, also one that has written before it failed.
func TestUpdateShared_OneFailsAlone(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		const n = 60
		bad := errors.New("no")
		errs := make([]error, n)
		begun, release, held := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		go func() {
			held <- db.UpdateShared(ctx, func(*storage.Tx) error { close(begun); <-release; return nil })
		}()
		<-begun // the writer is busy until all have come
		before := db.Stats().Commits
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				user := matrix.UserID(fmt.Sprintf("@u%d:acme.example", i))
				errs[i] = db.Update(ctx, func(tx *storage.Tx) error {
					if err := tx.PutAccountData(storage.AccountData{UserID: user, Type: "a", Content: []byte(`{}`)}); err != nil {
						return err
					}
					switch i % 20 {
					case 7:
						return bad
					case 9: // the database refuses it, and nobody looks
						_ = tx.SetCursor(string(user), 1)
						_ = storage.Exec(tx, `INSERT INTO cursors (name, pos) VALUES ('`+string(user)+`', 2)`)
					}
					return nil
				})
			})
		}
		for end := time.Now().Add(time.Minute); storage.Queued(db) < n; <-time.After(time.Millisecond) {
			if time.Now().After(end) {
				t.Errorf("%d of %d updates wait for the writer", storage.Queued(db), n)
				break
			}
		}
		close(release)
		must(t, <-held)
		all.Wait()
		for i, err := range errs {
			user := matrix.UserID(fmt.Sprintf("@u%d:acme.example", i))
			if i%20 == 7 && !errors.Is(err, bad) || i%20 != 7 && i%20 != 9 && err != nil {
				t.Errorf("update %d: %v", i, err)
			}
			got := db.Read(ctx, func(tx *storage.Tx) error { _, err := tx.LoadAccountDatum(user, "", "a"); return err })
			if (err == nil) != (got == nil) {
				t.Errorf("update %d is told %v, and what it wrote: %v", i, err, got)
			}
		}
		if commits := db.Stats().Commits - before; commits > n/2 {
			t.Errorf("%d commits for %d updates at a time", commits, n)
		}
	})
}

// An update that locks something before it puts an entry into the log, and one that does so the other way round, are not in each
// other's way.
func TestUpdate_NoCircleWithTheLog(t *testing.T) {
	t.Parallel()
	db := storagetest.Open(t, storage.Options{URL: storagetest.URL(t, "postgres")})
	ctx := context.Background()
	retries := make([]int, 40)
	var all sync.WaitGroup
	for i := range retries {
		all.Go(func() {
			err := db.Update(ctx, func(tx *storage.Tx) error {
				retries[i]++
				cursor := func() error { return tx.SetCursor("shared", int64(i)) }
				entry := func() error { return tx.Announce("x", "y") }
				if i%2 == 0 {
					cursor, entry = entry, cursor
				}
				if err := cursor(); err != nil {
					return err
				}
				return entry()
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for i, n := range retries {
		if n > 2 {
			t.Errorf("update %d was run %d times", i, n)
		}
	}
}
