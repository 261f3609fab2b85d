package storage

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// A database can go back in time: a standby that lagged behind is promoted, or an older backup is restored. What was acknowledged after
// that moment is lost, and what is worse, its positions would be given out again: to tokens that clients hold, to cursors, to what nodes have
// in memory. So each process remembers how far it has seen the log go (Watermark), compares with every look and every position that it
// takes, and gives the database up when that has gone back. The next start (settle) leaves the lost range unused, begins a new epoch, by
// which the other nodes find out, and withdraws all one-time keys, since claims of them may be lost.

// ErrWentBack is wrapped by the error with which a database was given up that has gone back in time, or that another node has found so. A new
// start of the server mends it.
var ErrWentBack = errors.New("storage: the database has gone back in time")

// lostMargin is how far a new epoch begins behind the last position that somebody remembers: more than a node takes between two looks of
// those that write down how far it is.
const lostMargin = 200_000

// Mark is how far the log of a cell has been seen to go.
type Mark struct {
	// Cell is the name of the database, Epoch how often it has gone back.
	Cell  string
	Epoch int64
	// Pos and Backfill are the highest numbers that were given out.
	Pos, Backfill int64
	// Origin is the PostgreSQL server and its timeline that answered last; empty where that is not known.
	Origin string
}

// Watermark is the Mark of a process. Its methods may be called from any goroutine.
type Watermark struct {
	mu    sync.Mutex // guards mark and known
	mark  Mark
	known bool // the epoch is that of the database
	back  chan struct{}
	once  sync.Once
}

// NewWatermark begins with what is remembered from before.
func NewWatermark(m Mark) *Watermark { return &Watermark{mark: m, back: make(chan struct{})} }

// Mark returns how far the log has been seen to go.
func (w *Watermark) Mark() Mark {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mark
}

// WentBack is closed when the database was found to have gone back.
func (w *Watermark) WentBack() <-chan struct{} { return w.back }

// saw notes numbers that are durable.
func (w *Watermark) saw(pos, backfill int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mark.Pos, w.mark.Backfill = max(w.mark.Pos, pos), max(w.mark.Backfill, backfill)
}

// compare is an error where the database is before what had been seen when it was asked, or in another epoch.
func (w *Watermark) compare(then Mark, pos, backfill, epoch int64) error {
	w.mu.Lock()
	known := w.known
	w.mu.Unlock()
	if !known || pos >= then.Pos && backfill >= then.Backfill && epoch == then.Epoch {
		return nil
	}
	w.once.Do(func() { close(w.back) })
	if epoch != then.Epoch {
		return fmt.Errorf("%w: another node has found it so (epoch %d, here %d): %w", ErrWentBack, epoch, then.Epoch, ErrUnavailable)
	}
	return fmt.Errorf("%w: it is at position %d, and was at %d: %w", ErrWentBack, pos, then.Pos, ErrUnavailable)
}

// ReadMark reads what WriteMark has written; nothing where there is no file.
func ReadMark(file string) (Mark, error) {
	var m Mark
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		if _, serr := fmt.Sscanf(string(data), "%s %d %d %d %s\n", &m.Cell, &m.Epoch, &m.Pos, &m.Backfill, &m.Origin); serr != nil {
			return Mark{}, nil // torn by a power failure, or not ours: nothing is remembered
		}
		m.Origin = strings.TrimPrefix(m.Origin, "-")
	}
	return m, err
}

// WriteMark writes a mark for the next start, whole or not at all.
func WriteMark(file string, m Mark) error {
	tmp := filepath.Join(filepath.Dir(file), "."+filepath.Base(file)+".new")
	if err := os.WriteFile(tmp, fmt.Appendf(nil, "%s %d %d %d %s\n", m.Cell, m.Epoch, m.Pos, m.Backfill, cmp.Or(m.Origin, "-")), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}

// settle compares the database with what is remembered before anything is read from it, and begins a new epoch where it has gone back.
func (db *DB) settle(ctx context.Context) error {
	c, err := db.connect(ctx)
	if err != nil {
		return err
	}
	defer db.drop(c)
	tx := &Tx{db: db, c: c, ctx: ctx, write: true}
	then := db.marks.Mark()
	var now Mark
	back, lost := false, int64(0)
	err = db.inMigration(ctx, c, func() error {
		cell, err := tx.LoadCell()
		if err != nil {
			return err
		}
		now.Cell = cell.Name
		if then.Cell != cell.Name {
			then = Mark{Cell: cell.Name} // another database than the last time
		}
		if err := tx.row(`UPDATE log_position SET pos = pos WHERE id = 1 RETURNING pos, backfill, epoch`, nil, &now.Pos, &now.Backfill, &now.Epoch); err != nil {
			return err
		}
		if now.Pos >= then.Pos && now.Backfill >= then.Backfill && now.Epoch >= then.Epoch {
			return nil
		}
		first := now.Pos + 1
		back, lost = true, max(now.Pos, then.Pos)-now.Pos
		now = Mark{Cell: cell.Name, Epoch: max(now.Epoch, then.Epoch) + 1, Pos: max(now.Pos, then.Pos) + lostMargin, Backfill: max(now.Backfill, then.Backfill) + lostMargin}
		return tx.skip(now, first)
	})
	if err != nil {
		return err
	}
	if back {
		db.log.WithField("pos", now.Pos).WithField("lost", lost).WithField("epoch", now.Epoch).Error("the database has gone back in time: what was written last is lost; " +
			"the range of positions is left unused and stands in the table lost_ranges")
	}
	db.marks.begin(now)
	return nil
}

// skip begins an epoch behind what is lost.
func (tx *Tx) skip(m Mark, first int64) error {
	for _, s := range []struct {
		q    string
		args []any
	}{
		{`UPDATE log_position SET pos = $1, backfill = $2, epoch = $3 WHERE id = 1`, []any{m.Pos, m.Backfill, m.Epoch}},
		{`INSERT INTO lost_ranges (epoch, first_pos, last_pos, found_ts) VALUES ($1, $2, $3, $4)`, []any{m.Epoch, first, m.Pos, tx.nowMS()}},
		{`DELETE FROM one_time_keys`, nil},
	} {
		if _, err := tx.exec(s.q, s.args...); err != nil {
			return fmt.Errorf("begin epoch %d: %w", m.Epoch, err)
		}
	}
	return nil
}

// begin takes the epoch that the database is in. Of several databases that share a watermark the first one says it.
func (w *Watermark) begin(m Mark) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.known {
		return
	}
	if m.Origin = w.mark.Origin; w.mark.Cell == m.Cell {
		m.Pos, m.Backfill = max(m.Pos, w.mark.Pos), max(m.Backfill, w.mark.Backfill)
	}
	w.mark, w.known = m, true
}

// checkText refuses a database in which texts are compared by the rules of some language: those change with the operating system, and then
// indexes do not find what is there. All columns of ours are made with the collation C; this finds those that somebody has changed, or
// restored otherwise.
func (db *DB) checkText(ctx context.Context) error {
	if db.d.foreignText == "" {
		return nil
	}
	c, err := db.connect(ctx)
	if err != nil {
		return err
	}
	defer db.drop(c)
	var column string
	err = c.c.QueryRowContext(ctx, db.d.foreignText).Scan(&column)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("the column %s has another collation than C: indexes over it break when the operating system is upgraded; "+
		"restore the database with the columns as they were made", column)
}

// LostRange is a range of positions that were given out and then lost, because the database had gone back in time. Nothing stands in it.
type LostRange struct {
	Epoch, First, Last, FoundTS int64
}

// LoadLostRanges returns all of them, the newest last.
func (tx *Tx) LoadLostRanges() ([]LostRange, error) {
	var out []LostRange
	err := tx.query(func(r *sql.Rows) error {
		var l LostRange
		err := r.Scan(&l.Epoch, &l.First, &l.Last, &l.FoundTS)
		out = append(out, l)
		return err
	}, `SELECT epoch, first_pos, last_pos, found_ts FROM lost_ranges ORDER BY epoch`)
	return out, err
}

// checkOrigin notices that another PostgreSQL server answers than before, or the same after a standby has taken over.
func (db *DB) checkOrigin(ctx context.Context, c *sql.Conn) {
	if db.d.origin == "" {
		return
	}
	var origin string
	if err := c.QueryRowContext(ctx, db.d.origin).Scan(&origin); err != nil {
		return // not every service that speaks its protocol knows
	}
	before := db.marks.answered(origin)
	if before == "" || before == origin {
		return
	}
	db.stats.failovers.Add(1)
	db.log.WithField("before", before).WithField("now", origin).Warn("another database server has taken over (system and timeline); looking whether all that was written is there")
}

// answered notes which server answers, and returns which one did before.
func (w *Watermark) answered(origin string) (before string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before, w.mark.Origin = w.mark.Origin, origin
	return before
}
