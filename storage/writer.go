package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"hansa/matrix"
)

// job is one caller's part of a batch: an append to a room, or an update.
type job struct {
	ap   *Append
	fn   func(*Tx) error
	done chan error
}

const (
	// maxBatch limits a batch in events, so that it stays one statement per table.
	maxBatch = 256
	// updateSize is what an update counts in it: it is some statements of its own.
	updateSize = 4
	// maxMoved limits how many heads are remembered that other nodes have moved rooms to.
	maxMoved = 4096
)

// Append stores events of one room and returns when they are durable. Appends of many rooms and callers share one
// transaction: a batch is what arrived while the last one was being committed. ErrConflict: the head has moved, load the room
// and build again. ErrDuplicate: an event or the transaction ID is stored already.
func (db *DB) Append(ctx context.Context, a *Append) error {
	return db.classify(db.submit(ctx, &job{ap: a}))
}

// Pending hands an append over without waiting; the returned function waits for the result. Appends that one goroutine hands
// over keep their order, so events of a room can be built on one another while the first is still on its way.
func (db *DB) Pending(ctx context.Context, a *Append) (wait func() error, err error) {
	j := &job{ap: a, done: make(chan error, 1)}
	if err := db.enqueue(ctx, j); err != nil {
		return nil, err
	}
	return func() error { return db.classify(db.result(j)) }, nil
}

func (db *DB) submit(ctx context.Context, j *job) error {
	j.done = make(chan error, 1)
	if err := db.enqueue(ctx, j); err != nil {
		return err
	}
	// Once handed over the work happens, whether or not the caller still waits: waiting for the truth is the only honest answer.
	return db.result(j)
}

// errEnded is what those are told who came when the writer had ended.
var errEnded = fmt.Errorf("%w: shutting down", ErrUnavailable)

// result waits for what comes of a job.
func (db *DB) result(j *job) error {
	select {
	case err := <-j.done:
		return err
	case <-db.ended:
	}
	select {
	case err := <-j.done:
		return err
	default:
		return errEnded
	}
}

func (db *DB) enqueue(ctx context.Context, j *job) error {
	if err := db.usable(); err != nil {
		return err
	}
	select {
	case db.jobs <- j:
		return nil
	default:
	}
	select {
	case db.jobs <- j:
		return nil
	case <-db.ended:
		return errEnded
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
}

// write is the one goroutine that commits batches. It takes what is there when its turn comes, and does not wait for more while it writes alone.
func (db *DB) write() {
	defer db.done.Done()
	defer close(db.ended)
	w := &writer{db: db, queue: queue{db: db, alone: db.d.singleWriter}}
	defer w.close()
	for batch := w.queue.next(); len(batch) > 0; batch = w.queue.next() {
		if w.shared && db.preferred.Load() == 0 {
			batch = w.queue.gather(batch)
		}
		w.run(batch, true)
		w.unprefer()
		w.queue.alone = !w.shared
	}
}

func (j *job) size() int {
	if j.ap == nil {
		return updateSize
	}
	return max(1, len(j.ap.Events))
}

func sizeOf(batch []*job) (n int) {
	for _, j := range batch {
		n += j.size()
	}
	return n
}

// writer owns the writing connection.
type writer struct {
	db    *DB
	queue queue
	c     *conn
	// commits are those since the connection was last tidied.
	commits int
	// seen is the last position that the writer knows of, moved the heads that other nodes have moved rooms to: what is appended to such a
	// room may be built on an older one.
	seen  int64
	moved map[int64]Head
	// shared is set while other nodes write, too: they did between the last two turns.
	shared bool
	// turn is that of the transaction which was begun; nil on SQLite, where nobody else writes.
	turn *turn
}

// canRebase tells whether something that goes into a room can be put on another head.
func canRebase(batch []*job, room matrix.RoomID) bool {
	return slices.ContainsFunc(batch, func(j *job) bool { return j.ap != nil && j.ap.Room.ID == room && j.ap.Rebase != nil })
}

// tidying says after how many commits it is looked how long the write-ahead log is, and from how many pages of 4 KiB on it is begun anew.
type tidying struct{ every, pages int }

// tidy does what has to be done between two transactions now and then.
func (w *writer) tidy() {
	if w.commits++; w.commits < w.db.tidying.every || w.db.d.tidy == nil || w.c == nil {
		return
	}
	w.commits = 0
	if err := w.db.d.tidy(context.Background(), w.c.c, w.db.tidying.pages); err != nil {
		w.db.log.WithError(err).Warn("the write-ahead log could not be begun anew")
		w.discard(err)
	}
}

func (w *writer) close() {
	if w.c != nil {
		w.db.drop(w.c)
	}
}

// manner is how a batch is tried: each of them is for what the try before has met.
type manner struct {
	careful bool // each update can fail alone
	look    bool // the heads of the rooms are read: one of them is not what it was thought to be
	row     bool // the counter row is locked: somebody writes without having a turn
	apart   bool // what is written and COMMIT are sent one after the other, so that it shows what is wrong
}

// run commits a batch. When the batch fails for a reason that lies in one of its jobs, that job is found (by name, or by
// halving) and fails alone. When the reason lies in the database, all of them are told at once, and it is returned: nobody waits in a queue
// for one failure after the other. A batch that is open takes in what has come until its turn comes.
func (w *writer) run(batch []*job, open bool) error {
	var how manner
	for try := 0; len(batch) > 0; {
		if err := w.begin(context.Background()); err != nil {
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
			finish(batch, err)
			finish(w.queue.rest(), err)
			return err
		}
		if open {
			batch, open = w.queue.fill(batch), false
			w.queue.went(sizeOf(batch))
		}
		errs, err := w.try(batch, how)
		if err == nil {
			for i, j := range batch {
				j.done <- errs[i]
			}
			w.tidy()
			return nil
		}
		var conflict *conflictError
		switch {
		case errors.As(err, &conflict) && !how.look && !w.db.d.singleWriter && canRebase(batch, conflict.room):
			how.look = true
		case errors.As(err, &conflict):
			batch = failRoom(batch, conflict.room, err)
		case errors.Is(err, errGuard) && !how.apart:
			how.apart = true
		case errors.Is(err, errTurn) && !how.row:
			how.row = true
		case w.db.d.isRetry(err) && try < maxRetries: // another node holds a lock that ours waits for in the other order
			again(try)
			try++
		case w.db.isDown(err) || w.db.d.isRetry(err):
			if finish(batch, err); w.db.d.isLate(err) { // another part of the batch would wait as long
				return err
			}
			return nil
		case !how.careful && errors.Is(err, errOneFailed):
			how.careful = true
		case len(batch) == 1:
			finish(batch, err)
			return nil
		default:
			half := len(batch) / 2
			if err := w.run(batch[:half], false); err != nil {
				finish(batch[half:], err)
				return err
			}
			batch = batch[half:]
		}
	}
	return nil
}

func finish(batch []*job, err error) {
	for _, j := range batch {
		j.done <- err
	}
}

// errOneFailed is wrapped by the error of a batch in which an update failed that may have written something before.
var errOneFailed = errors.New("storage: an update of the batch failed")

// try runs the batch in the transaction that was begun. With care each update can fail alone, and the list holds the errors of those that did; it
// costs two more statements each.
func (w *writer) try(batch []*job, how manner) (errs []error, err error) {
	db, ctx := w.db, context.Background()
	tx := &Tx{db: db, c: w.c, ctx: ctx, write: true, turn: w.turn, final: w.turn != nil && !how.apart && !slices.ContainsFunc(batch, func(j *job) bool { return j.ap == nil })}
	var appends []*Append
	for _, j := range batch {
		if j.ap != nil {
			appends = append(appends, j.ap)
		}
	}
	errs = make([]error, len(batch))
	if how.row {
		w.turn.pos, w.turn.backfill, err = tx.raise(0, 0)
	}
	if err == nil && how.look {
		err = w.look(tx, appends)
	}
	if err == nil && len(appends) > 0 {
		err = guard(tx, func(tx *Tx) error { return tx.appendAll(appends, w.moved) })
	}
	for i, j := range batch {
		switch {
		case err != nil || j.fn == nil:
		case how.careful:
			errs[i], err = w.nested(tx, j.fn)
		default:
			if err = guard(tx, j.fn); err == nil {
				err = tx.failed
			}
			if err != nil && len(batch) > 1 && !db.isDown(err) && !db.d.isRetry(err) {
				err = fmt.Errorf("%w: %w", errOneFailed, err)
			}
		}
	}
	if err == nil {
		err = tx.failed
	}
	if err != nil {
		w.rollback(err)
		return nil, err
	}
	if !tx.committed {
		if err = w.c.plain(ctx, "COMMIT"); err != nil {
			w.discard(err)
			return nil, err
		}
	}
	db.stats.commits.Add(1)
	if tx.first == w.seen+1 { // else somebody has written in between, and the next turn tells where
		w.seen = tx.last
	}
	for _, a := range appends {
		if _, ok := w.moved[a.num]; ok {
			w.moved[a.num] = a.Head
		}
		a.Room = &Room{ID: a.Room.ID, Version: a.Room.Version, Tenant: a.Room.Tenant, num: a.num, Head: a.Head}
	}
	db.publish(tx)
	return errs, nil
}

// begin begins a transaction, on a new connection where the old one turns out to be lost. It returns when no other node writes.
func (w *writer) begin(ctx context.Context) (err error) {
	if err := w.db.usable(); err != nil && !w.db.closed.Load() {
		return err
	}
	for fresh := false; ; {
		if w.c == nil {
			if w.c, err = w.db.connect(ctx); err != nil {
				return err
			}
			fresh = true
		}
		if w.db.d.singleWriter {
			err = w.c.plain(ctx, w.db.d.beginWrite)
		} else {
			err = w.takeTurn(ctx)
		}
		if err == nil {
			return nil
		}
		if w.discard(err); fresh || w.c != nil {
			return err
		}
	}
}

// nested runs one update inside the batch so that it can fail alone.
func (w *writer) nested(tx *Tx, fn func(*Tx) error) (own, fatal error) {
	if err := w.c.plain(tx.ctx, "SAVEPOINT update_job"); err != nil {
		return nil, err
	}
	entries, first, last := len(tx.entries), tx.first, tx.last
	if own = guard(tx, fn); own == nil {
		own = tx.failed
	}
	if own != nil {
		if err := w.c.plain(tx.ctx, "ROLLBACK TO SAVEPOINT update_job"); err != nil {
			return nil, errors.Join(own, err)
		}
		tx.failed = nil
		tx.entries, tx.first, tx.last = tx.entries[:entries], first, last
		if w.db.isDown(own) || w.db.d.isRetry(own) {
			return nil, own
		}
	}
	return own, w.c.plain(tx.ctx, "RELEASE SAVEPOINT update_job")
}

// rollback ends a transaction that has failed. A connection on which that cannot be done is of no use either.
func (w *writer) rollback(err error) {
	if w.discard(err); w.c == nil {
		return
	}
	if err := w.c.plain(context.Background(), "ROLLBACK"); err != nil {
		if w.discard(err); w.c != nil && !w.db.d.singleWriter { // SQLite may have rolled back by itself
			w.db.drop(w.c)
			w.c = nil
		}
	}
}

// discard gives the connection up when its state is not known, and the database when it is not known what the disk has.
func (w *writer) discard(err error) {
	if w.db.d.isBroken(err) {
		w.db.Fail(err)
	}
	if w.c != nil && w.db.d.isGone(err) {
		w.db.drop(w.c)
		w.c = nil
	}
}
