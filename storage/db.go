package storage

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"hansa/matrix"
)

// ErrNotFound is returned by Load methods when there is no such row.
var ErrNotFound = errors.New("storage: not found")

// ErrUnavailable wraps every error that means the database cannot be reached or has no room; the caller may try again.
var ErrUnavailable = errors.New("storage: the database is not available")

// Unavailable is what somebody is told of an error that wraps ErrUnavailable: to come again, later where the disk is full.
func Unavailable(err error) *matrix.Error {
	if IsFull(err) {
		return matrix.Errorf(503, matrix.CodeResourceLimit, "The server's storage is full. Please try again later.").With("retry_after_ms", 30000)
	}
	return matrix.Errorf(503, matrix.CodeUnknown, "The database is not available at the moment. Please try again.").With("retry_after_ms", 2000)
}

// Options say how to open a database.
type Options struct {
	// URL is `sqlite:path/to/file.db` or `postgres://...`.
	URL string
	Log *logrus.Entry
	// Publish receives, after each commit of this process, the entries that it added to the log: all positions from first to last.
	// It must return at once. Calls may come out of order where several transactions run at a time (PostgreSQL).
	Publish func(first, last int64, entries []Entry)
	// Node, where it is set, is the name under which this process has its sessions in PostgreSQL: see Tx.EndSessions.
	Node string
	// Readers is how many connections serve reads; 0 means 8. On PostgreSQL updates run on them, too, on half of them at most: an update
	// may wait for what another node holds, and reads shall not wait behind it.
	Readers int
	// Seen is how far the log has been seen to go, by this process and the one before it; nil means that nothing is known. See lost.go.
	Seen *Watermark
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// DB is an open, migrated database. All its methods may be called from any goroutine.
type DB struct {
	d        *dialect
	sql      *sql.DB
	opts     Options
	log      *logrus.Entry
	versions map[string]*matrix.RoomVersion
	free     chan *conn // idle connections
	slots    chan struct{}
	updates  chan struct{} // as slots, for updates
	jobs     chan *job
	quit     chan struct{}
	done     sync.WaitGroup
	ended    chan struct{} // closed when the writer has ended
	lock     *os.File
	stats    counters
	tidying  tidying
	closed   atomic.Bool
	failing  sync.Once
	failed   chan struct{} // closed by Fail
	marks    *Watermark
	// preferred is how many callers of Prefer there are.
	preferred atomic.Int64
}

// patience is how long a reader waits for a connection.
const patience = 10 * time.Second

type counters struct{ reads, statements, commits, events, failovers atomic.Int64 }

// Stats counts what the database was asked to do since it was opened.
type Stats struct {
	// Reads are SELECT statements, Statements are statements inside write transactions (without BEGIN and COMMIT),
	// Commits are write transactions, Events are events appended.
	Reads, Statements, Commits, Events int64
	// Failovers is how often another database server than before answered.
	Failovers int64
}

// conn is one connection with its prepared statements. It is used by one goroutine at a time.
type conn struct {
	c     *sql.Conn
	stmts map[string]*sql.Stmt
	texts map[shape]string
	named map[string]string // the names of what is prepared beside database/sql, by text
	turns bool              // a turn was prepared
	// preferred is set while no other node writes.
	preferred bool
}

// Open opens, checks and migrates a database and starts its writer.
func Open(ctx context.Context, o Options) (*DB, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Readers == 0 {
		o.Readers = 8
	}
	if o.Log == nil {
		o.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	if o.Seen == nil {
		o.Seen = NewWatermark(Mark{})
	}
	db := &DB{opts: o, marks: o.Seen, log: o.Log.WithField("pkg", "storage"), versions: map[string]*matrix.RoomVersion{},
		free: make(chan *conn, o.Readers), slots: make(chan struct{}, o.Readers), updates: make(chan struct{}, (o.Readers+1)/2), jobs: make(chan *job, 4096), quit: make(chan struct{}), ended: make(chan struct{}), failed: make(chan struct{}), tidying: tidying{every: 500, pages: 16000}}
	for _, id := range matrix.RoomVersions() {
		db.versions[id], _ = matrix.FindRoomVersion(id)
	}
	if err := db.dial(); err != nil {
		return nil, err
	}
	if err := db.migrate(ctx); err != nil {
		db.release()
		return nil, db.classify(fmt.Errorf("migrate the database: %w", err))
	}
	if err := db.checkText(ctx); err != nil {
		_ = db.release() // the first error counts
		return nil, db.classify(fmt.Errorf("check the database: %w", err))
	}
	if err := db.settle(ctx); err != nil {
		_ = db.release() // as above
		return nil, db.classify(fmt.Errorf("compare the database with what was seen of it: %w", err))
	}
	db.done.Add(1)
	go db.write()
	return db, nil
}

func (db *DB) dial() error {
	var dsn string
	switch {
	case strings.HasPrefix(db.opts.URL, "sqlite:"):
		path := strings.TrimPrefix(strings.TrimPrefix(db.opts.URL, "sqlite:"), "//")
		if path == "" || strings.ContainsAny(path, "?#") {
			return fmt.Errorf("database %q: want sqlite:path/to/file.db", db.opts.URL)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		lock, err := lockFile(path + ".lock")
		if err != nil {
			return err
		}
		db.d, db.lock, dsn = sqliteDialect(), lock, "file:"+path
	case strings.HasPrefix(db.opts.URL, "postgres://"), strings.HasPrefix(db.opts.URL, "postgresql://"):
		db.d, dsn = postgresDialect(), db.opts.URL
	default:
		return fmt.Errorf("database %.20q...: want sqlite:path or postgres://user@host/name", db.opts.URL)
	}
	pool, err := db.d.open(dsn)
	if err != nil {
		return err
	}
	pool.SetMaxOpenConns(db.opts.Readers + 2)
	pool.SetMaxIdleConns(db.opts.Readers + 2)
	db.sql = pool
	return nil
}

// Close waits for what is being written, then closes all connections.
func (db *DB) Close() error {
	if db.closed.Swap(true) {
		return nil
	}
	close(db.quit)
	db.done.Wait()
	return db.release()
}

func (db *DB) release() error {
	for {
		select {
		case c := <-db.free:
			db.drop(c)
			continue
		default:
		}
		break
	}
	err := db.sql.Close()
	if db.lock != nil {
		_ = db.lock.Close() // the lock ends with the descriptor
	}
	return err
}

// Name is "sqlite" or "postgres".
func (db *DB) Name() string { return db.d.name }

// Stats returns the counters.
func (db *DB) Stats() Stats {
	return Stats{db.stats.reads.Load(), db.stats.statements.Load(), db.stats.commits.Load(), db.stats.events.Load(), db.stats.failovers.Load()}
}

// connect opens and prepares a connection.
func (db *DB) connect(ctx context.Context) (*conn, error) {
	c, err := db.sql.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if err := db.d.setup(ctx, c); err != nil {
		_ = c.Close()
		if db.d.isGone(err) {
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return nil, err
	}
	db.checkOrigin(ctx, c)
	out := &conn{c: c, stmts: map[string]*sql.Stmt{}, texts: map[shape]string{}, named: map[string]string{}}
	if db.opts.Node != "" && db.d.nameSession != "" {
		if _, err := c.ExecContext(ctx, db.d.nameSession, sessionName(db.opts.Node)); err != nil {
			return nil, errors.Join(fmt.Errorf("%w: %w", ErrUnavailable, err), c.Close())
		}
	}
	return out, nil
}

// Fail gives the database up, for good: what was written may not be on the disk, and only a new process reads what is. Everything
// that is asked of it from now on is refused. It is called where writing to the disk failed half way.
func (db *DB) Fail(err error) {
	db.failing.Do(func() {
		db.log.WithError(err).Error("the disk failed; the database is given up until the server starts anew")
		close(db.failed)
	})
}

// Failed is closed when the database was given up.
func (db *DB) Failed() <-chan struct{} { return db.failed }

// Seen is how far the log has been seen to go.
func (db *DB) Seen() *Watermark { return db.marks }

// usable is an error after Fail and Close.
func (db *DB) usable() error {
	select {
	case <-db.failed:
		return fmt.Errorf("%w: the disk failed", ErrUnavailable)
	case <-db.marks.back:
		return fmt.Errorf("%w: %w", ErrWentBack, ErrUnavailable)
	default:
	}
	if db.closed.Load() {
		return fmt.Errorf("%w: shutting down", ErrUnavailable)
	}
	return nil
}

// acquire takes an idle connection or opens one; at most Options.Readers are out at a time. Nobody waits for ever.
func (db *DB) acquire(ctx context.Context) (*conn, error) {
	if err := db.usable(); err != nil {
		return nil, err
	}
	select {
	case c := <-db.free:
		return c, nil
	default:
	}
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-limit.C:
		return nil, fmt.Errorf("%w: no connection was free for %v", ErrUnavailable, patience)
	case c := <-db.free:
		return c, nil
	case db.slots <- struct{}{}:
		c, err := db.connect(context.WithoutCancel(ctx))
		if err != nil {
			<-db.slots
		}
		return c, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// giveBack returns a connection, or throws it away when its state is not known.
func (db *DB) giveBack(c *conn, sound bool) {
	if sound && !db.closed.Load() {
		db.free <- c
		return
	}
	db.drop(c)
	<-db.slots
}

func (db *DB) drop(c *conn) {
	for _, s := range c.stmts {
		_ = s.Close() // the connection goes away with them
	}
	_ = c.c.Raw(func(any) error { return driver.ErrBadConn })
	_ = c.c.Close()
}

func (c *conn) prepare(ctx context.Context, d *dialect, q string) (*sql.Stmt, error) {
	if s, ok := c.stmts[q]; ok {
		return s, nil
	}
	s, err := c.c.PrepareContext(ctx, d.query(q))
	if err != nil {
		return nil, fmt.Errorf("prepare %.60q: %w", q, err)
	}
	c.stmts[q] = s
	return s, nil
}

func (c *conn) plain(ctx context.Context, q string) error {
	s, ok := c.stmts[q]
	if !ok {
		var err error
		if s, err = c.c.PrepareContext(ctx, q); err != nil {
			return err
		}
		c.stmts[q] = s
	}
	_, err := s.ExecContext(ctx)
	return err
}

// View runs fn on one consistent snapshot of the database.
func (db *DB) View(ctx context.Context, fn func(*Tx) error) error { return db.read(ctx, true, fn) }

// Read runs fn without a transaction: for a single statement, one round trip cheaper than View.
func (db *DB) Read(ctx context.Context, fn func(*Tx) error) error { return db.read(ctx, false, fn) }

func (db *DB) read(ctx context.Context, snapshot bool, fn func(*Tx) error) error {
	for try := 0; ; try++ {
		err := db.readOnce(ctx, snapshot, fn)
		if err == nil || try >= 2 || ctx.Err() != nil || !(db.d.isGone(err) || db.d.isRetry(err)) {
			return db.classify(err)
		}
	}
}

func (db *DB) readOnce(ctx context.Context, snapshot bool, fn func(*Tx) error) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := db.acquire(ctx)
	if err != nil {
		return err
	}
	// A statement is never cancelled half way: a cancelled connection could hand its rows to the next user.
	tx := &Tx{db: db, c: c, ctx: context.WithoutCancel(ctx), old: snapshot}
	sound := false
	defer func() { db.giveBack(c, sound) }()
	if snapshot {
		if err := c.plain(tx.ctx, db.d.beginRead); err != nil {
			return err
		}
	}
	err = fn(tx)
	if snapshot {
		if cerr := c.plain(tx.ctx, "ROLLBACK"); cerr != nil {
			return errors.Join(err, cerr)
		}
	}
	sound = !db.d.isGone2(err)
	return err
}

func (d *dialect) isGone2(err error) bool { return err != nil && d.isGone(err) }

// classify marks the errors after which a caller may try again later.
func (db *DB) classify(err error) error {
	if err == nil || errors.Is(err, ErrUnavailable) {
		return err
	}
	if db.isDown(err) || db.d.isRetry(err) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// isDown tells whether an error lies in the database, and not in what was asked of it.
func (db *DB) isDown(err error) bool {
	return errors.Is(err, ErrUnavailable) || db.d.isGone(err) || db.d.isLate(err) || IsFull(err)
}

// Update runs fn in a write transaction. fn may be run several times and must have no effect outside tx. When fn returns an
// error nothing of it is kept. On SQLite updates of many callers share one commit; on PostgreSQL those do that put something into the
// log: see UpdateShared.
func (db *DB) Update(ctx context.Context, fn func(*Tx) error) error {
	if db.d.singleWriter {
		return db.UpdateShared(ctx, fn)
	}
	for try := 0; ; try++ {
		err := db.updateOnce(ctx, fn)
		switch {
		case errors.Is(err, errShare):
			return db.UpdateShared(ctx, fn)
		case err == nil || ctx.Err() != nil || try >= maxRetries || !db.d.isRetry(err) && !errors.Is(err, errNotBegun):
			return db.classify(err)
		}
		again(try)
	}
}

// UpdateShared is Update for a fn that puts something into the log, and saves it a first run in vain. The transaction is shared with
// what others update and append, and takes the position of the log before anything else: so there is one commit for many on either
// database, and no two transactions wait for one another in a circle.
func (db *DB) UpdateShared(ctx context.Context, fn func(*Tx) error) error {
	return db.classify(db.submit(ctx, &job{fn: fn}))
}

func (db *DB) updateOnce(ctx context.Context, fn func(*Tx) error) error {
	select {
	case db.updates <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-db.updates }()
	c, err := db.acquire(ctx)
	if err != nil {
		return err
	}
	sound := false
	defer func() { db.giveBack(c, sound) }()
	tx := &Tx{db: db, c: c, ctx: context.WithoutCancel(ctx), write: true, lone: true}
	if err := c.plain(tx.ctx, db.d.beginWrite); err != nil {
		return fmt.Errorf("%w: %w", errNotBegun, err)
	}
	err = guard(tx, fn)
	if err == nil {
		err = tx.failed
	}
	if err != nil {
		sound = c.plain(tx.ctx, "ROLLBACK") == nil && !db.d.isGone(err)
		return err
	}
	if err := c.plain(tx.ctx, "COMMIT"); err != nil {
		return err
	}
	sound = true
	db.stats.commits.Add(1)
	db.publish(tx)
	return nil
}

// errShare tells that an update needs the position of the log, which is taken first or not at all.
var errShare = errors.New("storage: an update that puts something into the log shares its transaction")

// errNotBegun marks the loss of a connection before anything was done on it: another one may be sound.
var errNotBegun = errors.New("storage: no transaction could be begun")

// maxRetries is how often a transaction is tried again that another one was in the way of.
const maxRetries = 10

// again waits a little before the next try, so that two who were in each other's way do not meet again.
func again(try int) { time.Sleep(time.Duration(rand.Int64N(int64(time.Millisecond) << min(try, 6)))) }

// guard turns a panic in a transaction function into an error, so that one caller's bug does not stop the writer.
func guard(tx *Tx, fn func(*Tx) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic in a transaction: %v", r)
		}
	}()
	return fn(tx)
}

func (db *DB) publish(tx *Tx) {
	if tx.last > 0 || tx.history > 0 {
		db.marks.saw(tx.last, tx.history)
	}
	if db.opts.Publish != nil && tx.last > 0 {
		db.opts.Publish(tx.first, tx.last, tx.entries)
	}
}
