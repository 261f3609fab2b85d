package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"hansa/matrix"
	"hansa/matrix/event"
)

// openHere opens a SQLite database for tests that look inside.
func openHere(t *testing.T, o Options) *DB {
	t.Helper()
	l := logrus.New()
	l.SetOutput(io.Discard)
	o.Log = logrus.NewEntry(l)
	if o.URL == "" {
		o.URL = "sqlite:" + filepath.Join(t.TempDir(), "hansa.db")
	}
	db, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// newRoomOf makes the append that begins a room.
func newRoomOf(t *testing.T, id string) *Append {
	t.Helper()
	v, _ := matrix.FindRoomVersion("11")
	e, err := event.Build(v, event.Draft{RoomID: matrix.RoomID(id), Type: "m.test", Sender: "@anna:acme.example", Content: []byte(`{}`), PrevEvents: []matrix.EventID{"$x"}, Depth: 1})
	if err != nil {
		t.Fatal(err)
	}
	return &Append{Room: &Room{ID: matrix.RoomID(id), Version: v, Tenant: "acme.example"}, Events: []NewEvent{{Event: e}},
		Head: Head{Name: string(e.ID), Extremities: []matrix.EventID{e.ID}, Depth: 1}}
}

// A SQLite that can corrupt its log is refused, and the one that is built in is none.
func TestD446_SQLiteVersion(t *testing.T) {
	t.Parallel()
	for v, old := range map[string]bool{"3.7.0": true, "3.44.2": true, "3.51.2": true, "3.51.3": false, "3.52.0": false, "3.100.1": false, "4.0.0": false, "": true, "x": true} {
		if got := versionLess(v, sqliteMinimum); got != old {
			t.Errorf("SQLite %q is refused: %v, want %v", v, got, old)
		}
	}
	db := openHere(t, Options{})
	var version string
	if err := db.Read(context.Background(), func(tx *Tx) error { return tx.row(`SELECT sqlite_version()`, nil, &version) }); err != nil || versionLess(version, sqliteMinimum) {
		t.Errorf("SQLite %s, %v", version, err)
	}
}

// Every connection is durable, maps no memory, and nobody else has the file.
func TestD447_Pragmas(t *testing.T) {
	t.Parallel()
	db := openHere(t, Options{Readers: 4})
	ctx := context.Background()
	check := func(tx *Tx) {
		for pragma, want := range map[string]string{"synchronous": "2", "journal_mode": "wal", "mmap_size": "0"} {
			var got string
			if err := tx.row("PRAGMA "+pragma, nil, &got); err != nil || got != want {
				t.Errorf("%s is %s, want %s (%v)", pragma, got, want, err)
			}
		}
	}
	inside := make(chan struct{})
	var wg sync.WaitGroup
	var all sync.WaitGroup
	all.Add(4)
	for range 4 { // four connections at once
		wg.Go(func() {
			err := db.View(ctx, func(tx *Tx) error {
				check(tx)
				all.Done()
				<-inside
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	close(inside)
	wg.Wait()
	if err := db.Update(ctx, func(tx *Tx) error { check(tx); return nil }); err != nil {
		t.Error(err)
	}
	if second, err := Open(ctx, Options{URL: db.opts.URL, Log: db.log}); err == nil {
		_ = second.Close()
		t.Error("a second process may open the file")
	}
}

// After the disk has failed nothing more is written, and nothing is promised.
func TestD451_FailedSyncIsFinal(t *testing.T) {
	t.Parallel()
	db := openHere(t, Options{})
	disk := errors.New("input/output error")
	broken := db.d.isBroken
	db.d.isBroken = func(err error) bool { return errors.Is(err, disk) || broken(err) }
	ctx := context.Background()
	if err := db.Append(ctx, newRoomOf(t, "!before:acme.example")); err != nil {
		t.Fatal(err)
	}
	bad := newRoomOf(t, "!bad:acme.example")
	bad.Also = func(*Tx) error { return disk }
	if err := db.Append(ctx, bad); err == nil {
		t.Fatal("an append is acknowledged though the disk failed")
	}
	select {
	case <-db.Failed():
	default:
		t.Fatal("the database goes on")
	}
	for what, err := range map[string]error{
		"append": db.Append(ctx, newRoomOf(t, "!after:acme.example")),
		"update": db.Update(ctx, func(*Tx) error { return nil }),
		"read":   db.Read(ctx, func(*Tx) error { return nil }),
		"view":   db.View(ctx, func(*Tx) error { return nil }),
	} {
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s after the disk failed: %v, want ErrUnavailable", what, err)
		}
	}
	url := db.opts.URL
	if err := db.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	again := openHere(t, Options{URL: url})
	err := again.Read(ctx, func(tx *Tx) error { _, err := tx.LoadRoom("!before:acme.example"); return err })
	if err != nil {
		t.Errorf("what was acknowledged before: %v", err)
	}
	if err := again.Read(ctx, func(tx *Tx) error { _, err := tx.LoadRoom("!after:acme.example"); return err }); !errors.Is(err, ErrNotFound) {
		t.Errorf("what was refused after: %v, want ErrNotFound", err)
	}
}

// Readers that hold all connections make others wait, for a while, and then tell them to come again.
func TestD462_PoolExhaustion(t *testing.T) {
	t.Parallel()
	db := openHere(t, Options{Readers: 2})
	ctx := context.Background()
	hold, held := make(chan struct{}), make(chan struct{}, 2)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if err := db.View(ctx, func(*Tx) error { held <- struct{}{}; <-hold; return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	<-held
	<-held
	begin := time.Now()
	if err := db.Read(ctx, func(*Tx) error { return nil }); !errors.Is(err, ErrUnavailable) || time.Since(begin) > 2*patience {
		t.Errorf("a read without a free connection: %v after %v, want ErrUnavailable", err, time.Since(begin))
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if err := db.Read(short, func(*Tx) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a read whose time is over: %v", err)
	}
	if err := db.Append(ctx, newRoomOf(t, "!a:acme.example")); err != nil { // writing needs none of them
		t.Errorf("append: %v", err)
	}
	close(hold)
	wg.Wait()
	if err := db.Read(ctx, func(*Tx) error { return nil }); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// Requests that go away in the middle of reading never leave rows for the next one.
func TestD463_CancelledQueries(t *testing.T) {
	t.Parallel()
	db := openHere(t, Options{Readers: 3})
	ctx := context.Background()
	const users = 50
	err := db.Update(ctx, func(tx *Tx) error {
		for u := range users {
			for f := range 20 {
				if err := tx.PutAccountData(AccountData{UserID: matrix.UserID(fmt.Sprintf("@u%d:acme.example", u)), Type: fmt.Sprint("t", f), Content: fmt.Appendf(nil, `{"of":%d}`, u)}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 250 {
				u := (worker*31 + i) % users
				user := matrix.UserID(fmt.Sprintf("@u%d:acme.example", u))
				c, cancel := context.WithCancel(ctx)
				if i%2 == 0 {
					wg.Go(cancel) // at any moment
				}
				err := db.View(c, func(tx *Tx) error {
					n := 0
					err := tx.query(func(r *sql.Rows) error {
						var id, content string
						if err := r.Scan(&id, &content); err != nil {
							return err
						}
						if n++; id != string(user) || content != fmt.Sprintf(`{"of":%d}`, u) {
							t.Errorf("%s got a row of %s: %s", user, id, content)
						}
						if i%7 == 0 && n == 3 {
							return errors.New("enough")
						}
						return nil
					}, `SELECT user_id, content FROM account_data WHERE user_id = $1`, string(user))
					if err == nil && n != 20 {
						t.Errorf("%s got %d rows", user, n)
					}
					return err
				})
				if err != nil && !errors.Is(err, context.Canceled) && !strings.Contains(err.Error(), "enough") {
					t.Errorf("%s: %v", user, err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
}

// Whatever the clock does, positions rise and order stays.
func TestD465_ClockJumps(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	db := openHere(t, Options{Now: func() time.Time { mu.Lock(); defer mu.Unlock(); return now }})
	last := int64(0)
	for i, jump := range []time.Duration{0, time.Hour, -time.Hour, 10 * 365 * 24 * time.Hour, -20 * 365 * 24 * time.Hour, 0, 0} {
		mu.Lock()
		now = now.Add(jump)
		mu.Unlock()
		a := newRoomOf(t, fmt.Sprintf("!r%d:acme.example", i))
		if err := db.Append(context.Background(), a); err != nil {
			t.Fatal(err)
		}
		if pos := a.Stored[0].Pos; pos != last+1 {
			t.Errorf("after a jump of %v: position %d after %d", jump, pos, last)
		}
		last = a.Stored[0].Pos
	}
}

// No number that orders anything comes from a sequence, which jumps when a standby takes over.
func TestD458_NoSequences(t *testing.T) {
	t.Parallel()
	list, err := listMigrations()
	if err != nil || len(list) == 0 {
		t.Fatalf("%d migrations, %v", len(list), err)
	}
	for _, m := range list {
		for _, word := range []string{"SERIAL", "SEQUENCE", "NEXTVAL", "AUTOINCREMENT", "IDENTITY"} {
			if strings.Contains(strings.ToUpper(m.text), word) {
				t.Errorf("migration %s uses %s", m.name, word)
			}
		}
	}
}
