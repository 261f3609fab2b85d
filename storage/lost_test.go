package storage_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sirupsen/logrus"

	"hansa/storage"
	"hansa/storage/storagetest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// notices puts n entries into the log and returns the position after them.
func notices(t *testing.T, db *storage.DB, n int) (pos int64, err error) {
	t.Helper()
	err = db.Update(context.Background(), func(tx *storage.Tx) error {
		for range n {
			if err := tx.Announce("test", "x"); err != nil {
				return err
			}
		}
		var err error
		pos, err = tx.Position()
		return err
	})
	return pos, err
}

// recorded is a log, and what was written to it.
func recorded() (*logrus.Entry, func() string) {
	var mu sync.Mutex
	var b strings.Builder
	l := logrus.New()
	l.SetOutput(writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return b.Write(p)
	}))
	return logrus.NewEntry(l), func() string {
		mu.Lock()
		defer mu.Unlock()
		return b.String()
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// goBack makes the database what a standby has that lags behind by some positions.
func goBack(t *testing.T, url string, pos, epoch int64) {
	t.Helper()
	driver, name := "pgx", url
	if path, ok := strings.CutPrefix(url, "sqlite:"); ok {
		driver, name = "sqlite", "file:"+path
	}
	raw, err := sql.Open(driver, name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = raw.Close() }()
	for _, q := range []string{"DELETE FROM notices WHERE pos > $1", "UPDATE log_position SET pos = $1"} {
		if _, err := raw.Exec(q, pos); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := raw.Exec("UPDATE log_position SET epoch = $1", epoch); err != nil {
		t.Fatal(err)
	}
}

// A standby that lagged behind is promoted. Whoever has seen more gives the database up before a position is given out again, be it at a look
// or at a write; the next start begins behind what was lost, says so, and withdraws one-time keys, claims of which may be lost.
func TestD457_LaggingStandby(t *testing.T) {
	t.Parallel()
	for _, name := range storagetest.Databases() {
		for _, how := range []string{"look", "write", "restart"} {
			t.Run(name+"/"+how, func(t *testing.T) {
				t.Parallel()
				ctx, url := context.Background(), storagetest.URL(t, name)
				file := filepath.Join(t.TempDir(), "position")
				log, said := recorded()
				db := storagetest.Open(t, storage.Options{URL: url, Log: log})
				first, err := notices(t, db, 10)
				must(t, err)
				key := storage.OneTimeKey{UserID: "@a:acme.example", DeviceID: "D", Algorithm: "signed_curve25519", KeyID: "AAA", Key: []byte(`{}`)}
				must(t, db.Update(ctx, func(tx *storage.Tx) error { return tx.PutOneTimeKeys([]storage.OneTimeKey{key}) }))
				last, err := notices(t, db, 25)
				must(t, err)
				goBack(t, url, first, 0)
				switch how {
				case "look":
					err = db.Read(ctx, func(tx *storage.Tx) error { _, err := tx.Position(); return err })
				case "write":
					_, err = notices(t, db, 1)
				case "restart":
					err = storage.ErrWentBack
				}
				if !errors.Is(err, storage.ErrWentBack) {
					t.Fatalf("%s: %v, want ErrWentBack", how, err)
				}
				if how != "restart" {
					select {
					case <-db.Seen().WentBack():
					default:
						t.Error("nobody is told")
					}
					if _, err := notices(t, db, 1); !errors.Is(err, storage.ErrUnavailable) {
						t.Errorf("the database that was given up takes %v", err)
					}
				}
				mark := db.Seen().Mark()
				if mark.Pos != last {
					t.Errorf("seen up to %d, want %d", mark.Pos, last)
				}
				must(t, storage.WriteMark(file, mark))
				must(t, db.Close())
				mark, err = storage.ReadMark(file)
				must(t, err)

				db = storagetest.Open(t, storage.Options{URL: url, Log: log, Seen: storage.NewWatermark(mark)})
				next, err := notices(t, db, 1)
				must(t, err)
				if next <= last {
					t.Errorf("position %d is given out again: what was lost went up to %d", next, last)
				}
				var ranges []storage.LostRange
				var keys []storage.KnownKey
				must(t, db.Read(ctx, func(tx *storage.Tx) (err error) {
					if ranges, err = tx.LoadLostRanges(); err == nil {
						keys, err = tx.LoadKnownKeys(key.UserID, key.DeviceID, []string{"AAA"})
					}
					return err
				}))
				if len(ranges) != 1 || ranges[0].First != first+1 || ranges[0].Last < last || ranges[0].Last >= next || ranges[0].Epoch != 1 {
					t.Errorf("lost ranges %+v, want one from %d to at least %d", ranges, first+1, last)
				}
				if len(keys) != 0 {
					t.Error("a one-time key can be claimed that may have been claimed before")
				}
				if !strings.Contains(said(), "gone back in time") {
					t.Errorf("no alarm: %s", said())
				}
				must(t, db.Close())
				db = storagetest.Open(t, storage.Options{URL: url, Seen: storage.NewWatermark(db.Seen().Mark())})
				if again, err := notices(t, db, 1); err != nil || again != next+1 {
					t.Errorf("after one more start: position %d, %v, want %d", again, err, next+1)
				}
			})
		}
	}
}

// Numbers for history go back as well, and they are not given out again either.
func TestD457_NumbersOfHistory(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		pos, err := notices(t, db, 3)
		must(t, err)
		w := storage.NewWatermark(storage.Mark{Cell: db.Seen().Mark().Cell, Pos: pos, Backfill: 77})
		must(t, db.Close())
		other := storagetest.Open(t, storage.Options{URL: storage.URLOf(db), Seen: w})
		if m := other.Seen().Mark(); m.Backfill <= 77 || m.Pos <= pos || m.Epoch != 1 {
			t.Errorf("after history went back: %+v", m)
		}
	})
}

// What one node has found, the others hear of by the epoch, at their next look or write; nodes that see nothing odd go on.
func TestD457_OtherNodes(t *testing.T) {
	t.Parallel()
	url := storagetest.URL(t, "postgres")
	a, b := storagetest.Open(t, storage.Options{URL: url}), storagetest.Open(t, storage.Options{URL: url})
	pos, err := notices(t, a, 5)
	must(t, err)
	if next, err := notices(t, b, 1); err != nil || next != pos+1 {
		t.Fatalf("the other node: %d, %v", next, err)
	}
	if _, err := notices(t, a, 1); err != nil {
		t.Fatal(err)
	}
	goBack(t, url, pos+1000, 1) // a node that has seen less than the others has found it and begun an epoch
	if _, err := notices(t, b, 1); !errors.Is(err, storage.ErrWentBack) {
		t.Errorf("write in another epoch: %v", err)
	}
	if err := a.Read(context.Background(), func(tx *storage.Tx) error { _, err := tx.Position(); return err }); !errors.Is(err, storage.ErrWentBack) {
		t.Errorf("look in another epoch: %v", err)
	}
}

// What is remembered of another database does not matter: the directory of a node can be used again.
func TestD457_AnotherDatabase(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		pos, err := notices(t, db, 1)
		must(t, err)
		must(t, db.Close())
		other := storagetest.Open(t, storage.Options{URL: storage.URLOf(db), Seen: storage.NewWatermark(storage.Mark{Cell: "another", Epoch: 7, Pos: 1 << 40})})
		if next, err := notices(t, other, 1); err != nil || next != pos+1 {
			t.Errorf("position %d, %v, want %d", next, err, pos+1)
		}
	})
}

// A file that was torn by a power failure is as good as none.
func TestD457_TornFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "position")
	for _, origin := range []string{"", "1/00000002"} {
		m := storage.Mark{Cell: "c", Epoch: 2, Pos: 5, Backfill: 7, Origin: origin}
		must(t, storage.WriteMark(file, m))
		if got, err := storage.ReadMark(file); err != nil || got != m {
			t.Errorf("read %+v, %v", got, err)
		}
	}
	for _, text := range []string{"", "c", "c 1 2", "c x y z\n", "\x00\x00"} {
		must(t, os.WriteFile(file, []byte(text), 0o600))
		if got, err := storage.ReadMark(file); err != nil || got != (storage.Mark{}) {
			t.Errorf("torn %q: %+v, %v", text, got, err)
		}
	}
	if got, err := storage.ReadMark(file + ".no"); err != nil || got != (storage.Mark{}) {
		t.Errorf("no file: %+v, %v", got, err)
	}
}

// A column that is not compared byte by byte is found at the start, and a server whose defaults are odd is used as if they were not.
func TestD461_CollationAndIsolation(t *testing.T) {
	t.Parallel()
	url := storagetest.URL(t, "postgres")
	db := storagetest.Open(t, storage.Options{URL: url})
	pos, err := notices(t, db, 1)
	must(t, err)
	must(t, db.Close())
	raw, err := sql.Open("pgx", url)
	must(t, err)
	defer func() { _ = raw.Close() }()
	for _, q := range []string{`DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET default_transaction_isolation = ''serializable'''; END $$`,
		`DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET default_transaction_read_only = on'; END $$`} {
		_, err := raw.Exec(q)
		must(t, err)
	}
	db = storagetest.Open(t, storage.Options{URL: url})
	if next, err := notices(t, db, 1); err != nil || next != pos+1 {
		t.Errorf("with odd defaults: %d, %v", next, err)
	}
	must(t, db.Update(context.Background(), func(tx *storage.Tx) error {
		if l := storage.IsolationOf(tx); l != "read committed" {
			t.Errorf("updates run in isolation %q", l)
		}
		return nil
	}))
	must(t, db.View(context.Background(), func(tx *storage.Tx) error {
		if l := storage.IsolationOf(tx); l != "repeatable read" {
			t.Errorf("views run in isolation %q", l)
		}
		return nil
	}))
	must(t, db.Close())
	fresh, err := sql.Open("pgx", url)
	must(t, err)
	defer func() { _ = fresh.Close() }()
	fresh.SetMaxOpenConns(1)
	for _, q := range []string{"SET default_transaction_read_only = off", `ALTER TABLE users ALTER COLUMN user_id TYPE TEXT COLLATE "en-x-icu"`} {
		_, err = fresh.Exec(q)
		must(t, err)
	}
	_, err = storage.Open(context.Background(), storage.Options{URL: url, Log: storagetest.Quiet()})
	if err == nil || !strings.Contains(err.Error(), "users.user_id") {
		t.Errorf("a column with the rules of a language: %v, want a refusal that names it", err)
	}
}
