// Package storagetest gives tests a real, migrated, empty database: SQLite in a temporary folder, and PostgreSQL at the URL in
// HANSA_TEST_POSTGRES, where each test gets a database of its own that is dropped afterwards.
//
// Each runs a test on both. A PostgreSQL that is missing fails the test with a sentence on how to get one; it is never skipped.
package storagetest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"hansa/storage"
)

// Databases are the names that Each and URL know.
func Databases() []string { return []string{"sqlite", "postgres"} }

// Each runs fn as a subtest on each database.
func Each(t *testing.T, fn func(t *testing.T, db *storage.DB)) {
	t.Helper()
	for _, name := range Databases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fn(t, Open(t, storage.Options{URL: URL(t, name)}))
		})
	}
}

// Open opens a database with the given options and closes it when the test ends.
func Open(t testing.TB, o storage.Options) *storage.DB {
	t.Helper()
	if o.Log == nil {
		o.Log = Quiet()
	}
	db, err := storage.Open(context.Background(), o)
	if err != nil {
		t.Fatalf("open %s: %v", o.URL, err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close the database: %v", err)
		}
	})
	return db
}

// Raw opens the database at a URL past the server, and closes it when the test ends.
func Raw(t testing.TB, url string) *sql.DB {
	t.Helper()
	driver, dsn := "pgx", url
	if path, ok := strings.CutPrefix(url, "sqlite:"); ok {
		driver, dsn = "sqlite", "file:"+path+"?_pragma=busy_timeout(10000)"
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close the database: %v", err)
		}
	})
	return db
}

// Quiet is a logger that writes nothing.
func Quiet() *logrus.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return logrus.NewEntry(l)
}

// URL returns the URL of a new empty database.
func URL(t testing.TB, name string) string {
	t.Helper()
	if name == "sqlite" {
		return "sqlite:" + filepath.Join(t.TempDir(), "hansa.db")
	}
	base := os.Getenv("HANSA_TEST_POSTGRES")
	if base == "" {
		t.Fatal("HANSA_TEST_POSTGRES is not set: run `make test`, or `eval $(test/setup/postgres.sh start)` for a throw-away PostgreSQL")
	}
	admin, err := sql.Open("pgx", base)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails
	db := "hansa_" + hex.EncodeToString(b)
	if _, err := admin.Exec(`CREATE DATABASE ` + db + ` ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0`); err != nil {
		t.Fatalf("create a test database at %s: %v", base, err)
	}
	t.Cleanup(func() {
		_, err := admin.Exec(`DROP DATABASE IF EXISTS ` + db + ` WITH (FORCE)`)
		if err != nil {
			t.Errorf("drop the test database: %v", err)
		}
		_ = admin.Close()
	})
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + db
	return u.String()
}
