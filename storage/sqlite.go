package storage

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/go-json-experiment/json"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

var bigintKeyRE = regexp.MustCompile(`\bBIGINT PRIMARY KEY\b`)

// sqliteMinimum is the first SQLite without the WAL-reset corruption bug.
const sqliteMinimum = "3.51.3"

func sqliteDialect() *dialect {
	return &dialect{
		name: "sqlite", open: func(dsn string) (*sql.DB, error) { return sql.Open("sqlite", dsn) },
		beginRead: "BEGIN", beginWrite: "BEGIN IMMEDIATE",
		singleWriter: true,
		query: func(q string) string {
			q = macroRE.ReplaceAllStringFunc(q, func(m string) string {
				p := macroRE.FindStringSubmatch(m)
				if p[1] == "BLOBSET" {
					return "IN (SELECT unhex(value) FROM json_each(" + p[2] + "))"
				}
				return "IN (SELECT value FROM json_each(" + p[2] + "))"
			})
			q = strings.ReplaceAll(q, "AS BYTEA)", "AS BLOB)")
			return sqlitePlaceholders(q)
		},
		ddl: func(q string) string {
			q = bigintKeyRE.ReplaceAllString(q, "INTEGER PRIMARY KEY")
			q = strings.ReplaceAll(q, "BYTEA", "BLOB")
			return strings.ReplaceAll(q, "BIGINT", "INTEGER")
		},
		set: func(list any) any {
			switch l := list.(type) {
			case [][]byte:
				hexes := make([]string, len(l))
				for i, b := range l {
					hexes[i] = hex.EncodeToString(b)
				}
				list = hexes
			}
			b, err := json.Marshal(list)
			if err != nil {
				return "[]"
			}
			return string(b)
		},
		clock:    "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
		setup:    sqliteSetup,
		tidy:     sqliteTidy,
		isUnique: func(err error) bool { return sqliteCode(err)&0xff == sqlite3.SQLITE_CONSTRAINT },
		isRetry:  func(err error) bool { c := sqliteCode(err) & 0xff; return c == sqlite3.SQLITE_BUSY },
		isLate:   func(error) bool { return false },
		isTaken:  func(error) bool { return false }, // nobody else gives positions out
		isGone: func(err error) bool {
			c := sqliteCode(err) & 0xff
			return c == sqlite3.SQLITE_IOERR || c == sqlite3.SQLITE_CORRUPT || c == sqlite3.SQLITE_NOTADB
		},
		// After fsync or write has failed, the kernel may have thrown the pages away: another attempt would succeed and lose them.
		isBroken: func(err error) bool {
			switch sqliteCode(err) {
			case sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_TRUNCATE:
				return true
			}
			return false
		},
	}
}

// sqlitePlaceholders writes ?1 for $1, and where they stand in order, each once, a plain ?. SQLite keeps the names of the numbered ones
// in a list that is walked for each value that is bound: of a statement with thousands of values that was most of the time.
func sqlitePlaceholders(q string) string {
	n := 0
	for _, m := range placeholderRE.FindAllStringSubmatch(q, -1) {
		if n++; m[1] != strconv.Itoa(n) {
			return placeholderRE.ReplaceAllString(q, "?$1")
		}
	}
	return placeholderRE.ReplaceAllString(q, "?")
}

func sqliteCode(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code()
	}
	return 0
}

// IsFull tells whether err says that the disk has no room left.
func IsFull(err error) bool {
	return sqliteCode(err)&0xff == sqlite3.SQLITE_FULL || errors.Is(err, syscall.ENOSPC) || pgCode(err) == "53100"
}

// sqliteSetup sets a connection's pragmas and reads back the one on which durability hangs.
func sqliteSetup(ctx context.Context, c *sql.Conn) error {
	var version string
	if err := c.QueryRowContext(ctx, "SELECT sqlite_version()").Scan(&version); err != nil {
		return err
	}
	if versionLess(version, sqliteMinimum) {
		return fmt.Errorf("SQLite %s can corrupt its write-ahead log; %s or later is needed", version, sqliteMinimum)
	}
	for _, p := range []string{"busy_timeout = 10000", "journal_mode = WAL", "synchronous = FULL", "wal_autocheckpoint = 10000",
		"mmap_size = 0", "cache_size = -2000", "temp_store = MEMORY", "case_sensitive_like = ON", "recursive_triggers = OFF"} {
		if _, err := c.ExecContext(ctx, "PRAGMA "+p); err != nil {
			return fmt.Errorf("PRAGMA %s: %w", p, err)
		}
	}
	var sync int
	var mode string
	if err := c.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&sync); err != nil {
		return err
	}
	if err := c.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil {
		return err
	}
	if sync != 2 || !strings.EqualFold(mode, "wal") {
		return fmt.Errorf("SQLite runs with synchronous=%d and journal_mode=%s; acknowledged writes need 2 (FULL) and wal", sync, mode)
	}
	return nil
}

// sqliteTidy begins the write-ahead log anew when it has more than most pages. SQLite does so by itself only in a moment without readers, and a busy
// server has none: the log would grow without end and every read would search in it. Here new readers are led to the database file,
// and the old ones get a moment to finish; when they do not, the next time will do.
func sqliteTidy(ctx context.Context, c *sql.Conn, most int) error {
	var busy, pages, moved int
	if err := c.QueryRowContext(ctx, "PRAGMA wal_checkpoint(NOOP)").Scan(&busy, &pages, &moved); err != nil || pages <= most {
		return err
	}
	if _, err := c.ExecContext(ctx, "PRAGMA busy_timeout = 200"); err != nil {
		return err
	}
	err := c.QueryRowContext(ctx, "PRAGMA wal_checkpoint(RESTART)").Scan(&busy, &pages, &moved)
	_, terr := c.ExecContext(ctx, "PRAGMA busy_timeout = 10000")
	return errors.Join(err, terr)
}

func versionLess(a, b string) bool {
	var x, y [3]int
	_, _ = fmt.Sscanf(a, "%d.%d.%d", &x[0], &x[1], &x[2])
	_, _ = fmt.Sscanf(b, "%d.%d.%d", &y[0], &y[1], &y[2])
	for i := range x {
		if x[i] != y[i] {
			return x[i] < y[i]
		}
	}
	return false
}

// lockFile takes the lock that keeps a second process off the database file. It is given back when the process ends, however
// it ends.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("another process has the database open (%s is locked)", path)
	}
	return f, nil
}
