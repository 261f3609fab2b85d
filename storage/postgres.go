package storage

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

var textTypeRE = regexp.MustCompile(`\bTEXT\b`)

func postgresDialect() *dialect {
	return &dialect{
		name: "postgres", open: openPostgres,
		beginRead: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", beginWrite: "BEGIN ISOLATION LEVEL READ COMMITTED", // whatever the default of the server is
		query: func(q string) string {
			return macroRE.ReplaceAllStringFunc(q, func(m string) string {
				p := macroRE.FindStringSubmatch(m)
				return "= ANY (" + p[2] + "::" + map[string]string{"SET": "text", "INTSET": "bigint", "BLOBSET": "bytea"}[p[1]] + "[])"
			})
		},
		ddl: func(q string) string {
			q = strings.ReplaceAll(q, ") WITHOUT ROWID", ")")
			return textTypeRE.ReplaceAllString(q, `TEXT COLLATE "C"`)
		},
		set: func(list any) any { return list }, // the driver makes an array of it
		setup: func(ctx context.Context, c *sql.Conn) error {
			// Nothing waits inside a transaction. One that does belongs to a node that is paused or cut off, and holds up all others.
			for _, s := range []string{"SET synchronous_commit = on", "SET statement_timeout = 30000", "SET lock_timeout = 20000",
				"SET idle_in_transaction_session_timeout = 4000", "SET standard_conforming_strings = on", "SET jit = off", "SET default_transaction_read_only = off"} {
				if _, err := c.ExecContext(ctx, s); err != nil {
					return fmt.Errorf("%s: %w", s, err)
				}
			}
			var fsync, encoding string
			if err := c.QueryRowContext(ctx, "SELECT current_setting('fsync'), current_setting('server_encoding')").Scan(&fsync, &encoding); err != nil {
				return err
			}
			if fsync != "on" {
				return errors.New("PostgreSQL runs with fsync=off: acknowledged writes would be lost at a power failure")
			}
			if encoding != "UTF8" {
				return fmt.Errorf("the database has encoding %s; UTF8 is needed (CREATE DATABASE ... ENCODING 'UTF8')", encoding)
			}
			return nil
		},
		isUnique: func(err error) bool { return pgCode(err) == "23505" },
		isGuard:  func(err error) bool { return pgCode(err) == "22012" },
		isRetry:  func(err error) bool { c := pgCode(err); return c == "40001" || c == "40P01" },
		isGone:   isGonePostgres,
		isLate:   func(err error) bool { c := pgCode(err); return c == "55P03" || c == "57014" }, // lock_timeout, statement_timeout
		isTaken: func(err error) bool {
			var e *pgconn.PgError
			return errors.As(err, &e) && e.Code == "23505" && e.ConstraintName == "events_pkey"
		},
		isBroken:    func(error) bool { return false }, // PostgreSQL looks after its own disk
		clock:       "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
		nameSession: "SELECT set_config('application_name', $1, false)",
		endSessions: `SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1
			AND state IS DISTINCT FROM 'idle' AND pid <> pg_backend_pid()`,
		// The first eight digits of the name of a WAL file are the timeline.
		origin: `SELECT (SELECT system_identifier FROM pg_control_system()) || '/' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)`,
		foreignText: `SELECT c.relname || '.' || a.attname || ' (' || l.collname || ')' FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
			JOIN pg_collation l ON l.oid = a.attcollation WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace AND a.attnum > 0
			AND NOT a.attisdropped AND l.collname NOT IN ('C', 'POSIX') ORDER BY 1 LIMIT 1`,
		lockMigrations: "SELECT pg_advisory_xact_lock(4815162342)",
	}
}

// openPostgres demands TLS where the URL does not say how much of it is wanted, and lets a connection show within a minute that nobody is
// at its other end any more.
func openPostgres(dsn string) (*sql.DB, error) {
	if !strings.Contains(dsn, "sslmode=") && os.Getenv("PGSSLMODE") == "" {
		sep := "?"
		if strings.Contains(dsn, "?") {
			sep = "&"
		}
		dsn += sep + "sslmode=require"
	}
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 3}}
	cfg.DialFunc = dialer.DialContext
	return stdlib.OpenDB(*cfg), nil
}

func pgCode(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func isGonePostgres(err error) bool {
	var ne net.Error
	switch c := pgCode(err); {
	case strings.HasPrefix(c, "08"), strings.HasPrefix(c, "57P"), c == "25P03", c == "25006": // the last two: this node was paused in a transaction, the server is a standby now
		return true
	case c != "":
		return false
	}
	var refused *pgconn.ConnectError
	return errors.Is(err, driver.ErrBadConn) || errors.As(err, &ne) || errors.As(err, &refused) || errors.Is(err, sql.ErrConnDone) ||
		strings.Contains(err.Error(), "EOF") || strings.Contains(err.Error(), "conn closed")
}

// raw gives fn the connection of the driver, for what database/sql has no words for.
func (c *conn) raw(fn func(*pgx.Conn) error) error {
	return c.c.Raw(func(d any) error { return fn(d.(*stdlib.Conn).Conn()) })
}

// commitWith runs a statement and, where it does not fail, COMMIT, in one round trip.
func (c *conn) commitWith(ctx context.Context, q string, args []any) error {
	return c.raw(func(p *pgx.Conn) (err error) {
		name, ok := c.named[q]
		if !ok {
			name = "hansa_commit_" + strconv.Itoa(len(c.named))
			if _, err := p.Prepare(ctx, name, q); err != nil {
				return err
			}
			c.named[q] = name
		}
		var batch pgx.Batch
		batch.Queue(name, args...)
		batch.Queue("COMMIT")
		results := p.SendBatch(ctx, &batch)
		defer func() {
			if cerr := results.Close(); err == nil {
				err = cerr
			}
		}()
		if _, err := results.Exec(); err != nil {
			return err
		}
		done, err := results.Exec()
		if err == nil && done.String() != "COMMIT" {
			err = fmt.Errorf("COMMIT was answered by %s", done)
		}
		return err
	})
}
