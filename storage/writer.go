package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

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
	// contendedFor is how long after a conflict others are expected.
	contendedFor = 2 * time.Second
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
	return func() error { return db.classify(<-j.done) }, nil
}

func (db *DB) submit(ctx context.Context, j *job) error {
	j.done = make(chan error, 1)
	if err := db.enqueue(ctx, j); err != nil {
		return err
	}
	// Once handed over the work happens, whether or not the caller still waits: waiting for the truth is the only honest answer.
	return <-j.done
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
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
}

// write is the one goroutine that commits batches. It takes what is there and never waits for more.
func (db *DB) write() {
	defer db.done.Done()
	w := &writer{db: db}
	defer w.close()
	for {
		select {
		case j := <-db.jobs:
			w.run(db.drain(j))
		case <-db.quit:
			for {
				select {
				case j := <-db.jobs:
					w.run(db.drain(j))
				default:
					return
				}
			}
		}
	}
}

func (db *DB) drain(first *job) []*job {
	batch, size := []*job{first}, first.size()
	for size < maxBatch {
		select {
		case j := <-db.jobs:
			batch = append(batch, j)
			size += j.size()
		default:
			return batch
		}
	}
	return batch
}

func (j *job) size() int {
	if j.ap == nil {
		return updateSize
	}
	return max(1, len(j.ap.Events))
}

// writer owns the writing connection.
type writer struct {
	db *DB
	c  *conn
	// commits are those since the connection was last tidied.
	commits int
	// conflict is when another node was last found to have moved a room.
	conflict time.Time
}

// contended tells whether heads are read before they are moved, because another node has moved one lately.
func (w *writer) contended() bool { return time.Since(w.conflict) < contendedFor }

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

// run commits a batch. When the batch fails for a reason that lies in one of its jobs, that job is found (by name, or by
// halving) and fails alone.
func (w *writer) run(batch []*job) {
	careful := false
	for try := 0; len(batch) > 0; {
		errs, err := w.try(batch, careful)
		if err == nil {
			for i, j := range batch {
				j.done <- errs[i]
			}
			w.tidy()
			return
		}
		var conflict *conflictError
		switch {
		case errors.As(err, &conflict) && !w.contended() && canRebase(batch, conflict.room):
			w.conflict = time.Now()
		case errors.As(err, &conflict):
			batch = failRoom(batch, conflict.room, err)
		case w.db.d.isRetry(err) && try < maxRetries: // another node holds a lock that ours waits for in the other order
			again(try)
			try++
		case !careful && errors.Is(err, errOneFailed):
			careful = true
		case len(batch) == 1 || w.db.d.isGone(err) || w.db.d.isRetry(err) || IsFull(err):
			for _, j := range batch {
				j.done <- err
			}
			return
		default:
			w.run(batch[:len(batch)/2])
			batch = batch[len(batch)/2:]
		}
	}
}

func failRoom(batch []*job, room matrix.RoomID, err error) []*job {
	var rest []*job
	for _, j := range batch {
		if j.ap != nil && j.ap.Room.ID == room {
			j.done <- err
		} else {
			rest = append(rest, j)
		}
	}
	return rest
}

// errOneFailed is wrapped by the error of a batch in which an update failed that may have written something before.
var errOneFailed = errors.New("storage: an update of the batch failed")

// try runs the batch in one transaction. With care each update can fail alone, and the list holds the errors of those that did; it
// costs two more statements each.
func (w *writer) try(batch []*job, careful bool) (errs []error, err error) {
	db, ctx := w.db, context.Background()
	if err := db.usable(); err != nil && !db.closed.Load() {
		return nil, err
	}
	if err := w.begin(ctx); err != nil {
		return nil, err
	}
	tx := &Tx{db: db, c: w.c, ctx: ctx, write: true}
	var appends []*Append
	for _, j := range batch {
		if j.ap != nil {
			appends = append(appends, j.ap)
		}
	}
	errs = make([]error, len(batch))
	switch {
	case len(appends) > 0:
		err = guard(tx, func(tx *Tx) error { return tx.appendAll(appends, w.contended()) })
	case !db.d.singleWriter:
		_, _, err = tx.raise(0, 0) // before any other row, so that batches of several nodes do not wait for each other in a circle
	}
	for i, j := range batch {
		switch {
		case err != nil || j.fn == nil:
		case careful:
			errs[i], err = w.nested(tx, j.fn)
		default:
			if err = guard(tx, j.fn); err == nil {
				err = tx.failed
			}
			if err != nil && len(batch) > 1 && !w.db.d.isGone(err) && !w.db.d.isRetry(err) && !IsFull(err) {
				err = fmt.Errorf("%w: %w", errOneFailed, err)
			}
		}
	}
	if err == nil {
		err = tx.failed
	}
	if err != nil {
		w.discard(errors.Join(err, w.c.plain(ctx, "ROLLBACK")))
		return nil, err
	}
	if err = w.c.plain(ctx, "COMMIT"); err != nil {
		w.discard(err)
		return nil, err
	}
	db.stats.commits.Add(1)
	for _, a := range appends {
		a.Room = &Room{ID: a.Room.ID, Version: a.Room.Version, Tenant: a.Room.Tenant, num: a.num, Head: a.Head}
	}
	db.publish(tx)
	return errs, nil
}

// begin begins a transaction, on a new connection where the old one turns out to be lost.
func (w *writer) begin(ctx context.Context) (err error) {
	for fresh := false; ; {
		if w.c == nil {
			if w.c, err = w.db.connect(ctx); err != nil {
				return err
			}
			fresh = true
		}
		if err = w.c.plain(ctx, w.db.d.beginWrite); err == nil {
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
		if w.db.d.isGone(own) || w.db.d.isRetry(own) || IsFull(own) {
			return nil, own
		}
	}
	return own, w.c.plain(tx.ctx, "RELEASE SAVEPOINT update_job")
}

// discard gives the connection up when its state is not known, and the database when it is not known what the disk has.
func (w *writer) discard(err error) {
	if w.db.d.isBroken(err) {
		w.db.Fail(err)
	}
	if w.db.d.isGone(err) {
		w.db.drop(w.c)
		w.c = nil
	}
}
