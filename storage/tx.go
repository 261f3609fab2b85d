package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
)

// Tx is one transaction, or for DB.Read one connection. It is used by one goroutine and only inside the function it is given to.
type Tx struct {
	db      *DB
	c       *conn
	ctx     context.Context // of the transaction; statements are never cancelled half way
	write   bool
	lone    bool  // begun without the position of the log
	old     bool  // sees the database as it was when the transaction began
	first   int64 // positions that this transaction has taken, 0 when none
	last    int64
	history int64 // the last number for history that this transaction has taken, 0 when none
	entries []Entry
	turn    *turn // where positions are taken from at first; nil where the row is raised at once
	// final is set where whatever is inserted last may be committed with it, committed where that has happened.
	final, committed bool
	// failed is the first statement that PostgreSQL refused. It has given the transaction up then, and would take COMMIT for ROLLBACK
	// without a word, also where the caller makes nothing of the error.
	failed error
}

// refused takes note of a statement's error.
func (tx *Tx) refused(err error) error {
	if err != nil && tx.write && tx.failed == nil && !tx.db.d.singleWriter {
		tx.failed = err
	}
	return err
}

// nowMS is the clock in ms since 1970.
func (tx *Tx) nowMS() int64 { return tx.db.opts.Now().UnixMilli() }

// set wraps a list ([]string, []int64 or [][]byte) as the parameter of SET, INTSET or BLOBSET.
func (tx *Tx) set(list any) any { return tx.db.d.set(list) }

// setOf does the same for any slice of a string type.
func setOf[S ~string](tx *Tx, list []S) any {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = dbText(string(s))
	}
	return tx.db.d.set(out)
}

func (tx *Tx) exec(q string, args ...any) (int64, error) {
	s, err := tx.c.prepare(tx.ctx, tx.db.d, q)
	if err != nil {
		return 0, tx.refused(err)
	}
	tx.db.stats.statements.Add(1)
	r, err := s.ExecContext(tx.ctx, args...)
	if err != nil {
		return 0, tx.refused(err)
	}
	return r.RowsAffected()
}

// query runs a statement and calls scan for each row.
func (tx *Tx) query(scan func(*sql.Rows) error, q string, args ...any) (err error) {
	s, err := tx.c.prepare(tx.ctx, tx.db.d, q)
	if err != nil {
		return tx.refused(err)
	}
	tx.count()
	rows, err := s.QueryContext(tx.ctx, args...)
	if err != nil {
		return tx.refused(err)
	}
	defer func() {
		if cerr := rows.Close(); err == nil {
			err = cerr
		}
	}()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return tx.refused(rows.Err())
}

func (tx *Tx) count() {
	if tx.write {
		tx.db.stats.statements.Add(1)
	} else {
		tx.db.stats.reads.Add(1)
	}
}

// row runs a statement that yields at most one row; no row is ErrNotFound.
func (tx *Tx) row(q string, args []any, dest ...any) error {
	s, err := tx.c.prepare(tx.ctx, tx.db.d, q)
	if err != nil {
		return tx.refused(err)
	}
	tx.count()
	err = s.QueryRowContext(tx.ctx, args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return tx.refused(err)
}

const maxBulk = 256

// bulk inserts rows with one statement per 256 rows. head is `INSERT INTO t (...)`, types the SQL types of the columns, tail what
// follows the rows. scan, when not nil, reads the rows of a RETURNING clause.
func (tx *Tx) bulk(head string, types []string, tail string, rows [][]any, scan func(*sql.Rows) error) error {
	for len(rows) > 0 {
		n := min(len(rows), maxBulk)
		size := bulkSize(n)
		part := insertion{head: head, types: types, tail: tail, rows: rows[:n]}
		args, err := padded(make([]any, 0, size*len(types)), &part, size)
		if err != nil {
			return err
		}
		q := tx.c.insertSQL([]insertion{part}, size, false)
		if scan != nil {
			if err := tx.query(scan, q, args...); err != nil {
				return err
			}
		} else if _, err := tx.exec(q, args...); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// padded appends the values of some rows, and NULL for those that are wanting to size.
func padded(args []any, i *insertion, size int) ([]any, error) {
	end := len(args) + size*len(i.types)
	for _, r := range i.rows {
		if len(r) != len(i.types) {
			return nil, fmt.Errorf("%s: %d values for %d columns", i.head, len(r), len(i.types))
		}
		args = append(args, r...)
	}
	for len(args) < end {
		args = append(args, nil)
	}
	return args, nil
}

// together makes several insertions that do not depend on one another: on PostgreSQL in one statement per 256 rows of the longest, for there
// each is a round trip while others wait; on SQLite one after the other.
func (tx *Tx) together(list ...insertion) error {
	list = slices.DeleteFunc(list, func(i insertion) bool { return len(i.rows) == 0 })
	if tx.db.d.singleWriter || len(list) == 1 {
		for _, i := range list {
			var scan func(*sql.Rows) error
			if i.back != nil {
				scan = func(r *sql.Rows) error {
					var n int64
					if err := r.Scan(&n); err != nil {
						return err
					}
					i.back(n)
					return nil
				}
			}
			if err := tx.bulk(i.head, i.types, i.tail, i.rows, scan); err != nil {
				return err
			}
		}
		return nil
	}
	for len(list) > 0 {
		longest, width := 0, 0
		for _, i := range list {
			longest, width = max(longest, len(i.rows)), width+len(i.types)
		}
		size := bulkSize(min(longest, maxBulk))
		args, part := make([]any, 0, size*width), slices.Clone(list)
		var err error
		for i := range part {
			part[i].rows = part[i].rows[:min(len(part[i].rows), size)]
			if args, err = padded(args, &part[i], part[i].size(size)); err != nil {
				return err
			}
			list[i].rows = list[i].rows[len(part[i].rows):]
		}
		if err := tx.query(func(r *sql.Rows) error {
			var i, n int64
			if err := r.Scan(&i, &n); err != nil || i < 0 {
				return err
			}
			part[i].back(n)
			return nil
		}, tx.c.insertSQL(part, size, false), args...); err != nil {
			return err
		}
		list = slices.DeleteFunc(list, func(i insertion) bool { return len(i.rows) == 0 })
	}
	return nil
}

// errGuard tells that something was not as it was expected when insertions were made together with COMMIT. Nothing was written.
var errGuard = errors.New("storage: something has changed before the commit")

// finish makes the last insertions, of 256 rows each at most, and commits, in one round trip: all other nodes wait meanwhile. Each that
// returns something must return it of every row; which one did not is not told, but found out by making them one after the other.
func (tx *Tx) finish(list []insertion) error {
	list = slices.DeleteFunc(list, func(i insertion) bool { return len(i.rows) == 0 })
	longest, width := 0, 0
	for _, i := range list {
		longest, width = max(longest, len(i.rows)), width+len(i.types)
	}
	size := bulkSize(longest)
	args, err := make([]any, 0, size*width+len(list)), error(nil)
	for i := range list {
		if args, err = padded(args, &list[i], list[i].size(size)); err != nil {
			return err
		}
	}
	for i := range list {
		if list[i].back != nil {
			args = append(args, int64(len(list[i].rows)))
		}
	}
	tx.count()
	if err := tx.c.commitWith(tx.ctx, tx.c.insertSQL(list, size, true), args); err != nil {
		if tx.db.d.isGuard(err) {
			err = fmt.Errorf("%w: %w", errGuard, err)
		}
		return err
	}
	tx.committed = true
	return nil
}

const raiseSQL = `UPDATE log_position SET pos = pos + $1, backfill = backfill + $2 WHERE id = 1 RETURNING pos, backfill, epoch`

// raise takes n positions of the log and m numbers for history, and returns the last of each. The counter row stays
// locked until the transaction ends, which is what makes positions visible in order.
func (tx *Tx) raise(n, m int64) (pos, backfill int64, err error) {
	if tx.lone {
		tx.failed = errShare
		return 0, 0, errShare
	}
	var epoch int64
	seen := tx.db.marks.Mark()
	if err := tx.row(raiseSQL, []any{n, m}, &pos, &backfill, &epoch); err != nil {
		return 0, 0, fmt.Errorf("raise the log position: %w", err)
	}
	if err := tx.db.marks.compare(seen, pos-n, backfill-m, epoch); err != nil {
		return 0, 0, tx.refused(err)
	}
	if m > 0 {
		tx.history = backfill
	}
	if n > 0 {
		if tx.first == 0 {
			tx.first = pos - n + 1
		}
		tx.last = pos
	}
	return pos, backfill, nil
}

// emit takes the next position for an entry, and announces it when the transaction commits.
func (tx *Tx) emit(e Entry) (int64, error) {
	pos, _, err := tx.raise(1, 0)
	if err != nil {
		return 0, err
	}
	e.Pos = pos
	tx.entries = append(tx.entries, e)
	return pos, nil
}

// Position returns the newest position of the log that this transaction can see.
func (tx *Tx) Position() (int64, error) {
	var pos, backfill, epoch int64
	seen := tx.db.marks.Mark()
	err := tx.row(`SELECT pos, backfill, epoch FROM log_position WHERE id = 1`, nil, &pos, &backfill, &epoch)
	if err == nil && !tx.old {
		err = tx.db.marks.compare(seen, pos, backfill, epoch)
	}
	return pos, err
}
