package storage

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// What depends on a room alone is asked once a room. Asked once an event, it made a sync of a room with thousands of unread events take
// minutes, and all others wait for a connection.
func TestPlans_NothingIsAskedForEachEvent(t *testing.T) {
	t.Parallel()
	db, err := Open(context.Background(), Options{URL: "sqlite:" + filepath.Join(t.TempDir(), "hansa.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	for name, q := range map[string]struct {
		text string
		args []any
	}{"timelines": {timelinesSQL(), []any{"[]", 0, 0, 0}}, "unread": {unreadSQL(), []any{"[]", "", 0}}} {
		rows, err := db.sql.Query("EXPLAIN QUERY PLAN "+db.d.query(q.text), q.args...)
		if err != nil {
			t.Fatal(err)
		}
		parent, step := map[int]int{}, map[int]string{}
		for rows.Next() {
			var id, up, unused int
			var text string
			if err := rows.Scan(&id, &up, &unused, &text); err != nil {
				t.Fatal(err)
			}
			parent[id], step[id] = up, text
		}
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
		for id, text := range step {
			if strings.HasPrefix(text, "CORRELATED") && !strings.HasPrefix(step[parent[id]], "MATERIALIZE") {
				t.Errorf("%s: %q stands below %q", name, text, step[parent[id]])
			}
		}
		if len(step) < 4 {
			t.Errorf("%s: the plan was not understood: %v", name, step)
		}
	}
}

// However readers overlap, the write-ahead log does not grow without end.
func TestWriter_BeginsALongLogAnew(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	db, err := Open(ctx, Options{URL: "sqlite:" + filepath.Join(t.TempDir(), "hansa.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	update := func(fn func(tx *Tx) error) {
		t.Helper()
		if err := db.Update(ctx, fn); err != nil {
			t.Fatal(err)
		}
	}
	// The writer looks at tidying after it has handed out the result of a commit: it is set inside of one.
	update(func(*Tx) error { db.tidying = tidying{every: 5, pages: 100}; return nil })
	write := func(i int) {
		update(func(tx *Tx) error {
			return tx.PutAccountData(AccountData{UserID: "@a:x", Type: fmt.Sprint("t", i%7), Content: make([]byte, 60000)})
		})
	}
	// Two readers take turns so that there is one at any moment, and none stays.
	stop, handover := make(chan struct{}), make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				over := false
				_ = db.View(ctx, func(tx *Tx) error {
					_, err := tx.Position()
					select {
					case handover <- struct{}{}:
					case <-handover:
					case <-stop:
						over = true
					}
					return err
				})
				if over {
					return
				}
			}
		})
	}
	most := 0
	for i := range 600 {
		write(i)
		var busy, pages, moved int
		if err := db.sql.QueryRow("PRAGMA wal_checkpoint(NOOP)").Scan(&busy, &pages, &moved); err != nil {
			t.Fatal(err)
		}
		most = max(most, pages)
	}
	close(stop)
	readers.Wait()
	if most > 1000 {
		t.Errorf("the write-ahead log reached %d pages", most)
	}
}
