package storage

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"hansa/matrix"
)

// turn is where the log stands while this node alone writes into it (PostgreSQL). Nodes take turns by an advisory lock, and not by the
// counter row, so that a node can gather what it has to write until its turn comes; and one round trip gives it all that it has to
// know: others wait meanwhile. The row is still raised in the same transaction, so positions are gapless whoever writes.
type turn struct{ pos, backfill, epoch int64 }

// turnReach is how many events the statement that begins a turn looks at.
const turnReach = 1024

const (
	// The settings are for all that the writer does: who holds the turn scans no table that has an index, and plans nothing twice. To set them
	// for one statement would cost more than the statement, and others wait meanwhile.
	setTurnsSQL  = `SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan; `
	beginTurnSQL = `%sBEGIN ISOLATION LEVEL READ COMMITTED; EXECUTE hansa_lock; EXECUTE hansa_turn(%d)`
	// A statement of its own: what sees the rooms as they are at the turn has to begin after it.
	prepareLockSQL = `PREPARE hansa_lock AS SELECT pg_advisory_xact_lock_shared(5162342482), pg_advisory_xact_lock(5162342481); `
	// What a turn begins with: the position, and the rooms that others have written into since the last one. It is said so that no plan but
	// by the keys is possible, however little PostgreSQL knows of the tables when it makes one.
	prepareTurnSQL = `PREPARE hansa_turn (BIGINT) AS
		SELECT l.pos, l.backfill, l.epoch, r.room_num, r.head, r.extremities, r.depth, r.state_root, r.last_pos, r.state_pos FROM log_position l
		LEFT JOIN (SELECT DISTINCT n.room_num FROM (SELECT e.room_num FROM events e WHERE e.pos > $1 ORDER BY e.pos LIMIT %d) AS n) AS m ON TRUE
		LEFT JOIN LATERAL (SELECT * FROM rooms WHERE rooms.room_num = m.room_num OFFSET 0) AS r ON TRUE WHERE l.id = 1`
	// The row is raised only from where it was at the turn.
	raiseTurnSQL  = `UPDATE log_position AS l SET pos = n.column1, backfill = n.column2 FROM (`
	raiseTurnTail = `) AS n WHERE l.id = 1 AND l.pos = n.column3 AND l.backfill = n.column4 RETURNING l.pos`
)

// A node that has preference holds for itself what all others need beside the turn.
const (
	preferSQL   = `SELECT pg_advisory_lock(5162342482);`
	unpreferSQL = `SELECT pg_advisory_unlock_all()`
	turnColumns = 10
)

// preferFor is how long a node goes first at most.
const preferFor = 2 * time.Second

// Prefer keeps all other nodes from writing into the log until end is called, though not for longer than two seconds. It is for somebody whose room
// others have moved on time and again while it was still being found out what to write. Calling end more than once does nothing.
func (db *DB) Prefer(ctx context.Context) (end func(), err error) {
	if db.d.singleWriter {
		return func() {}, nil
	}
	db.preferred.Add(1)
	var once sync.Once
	give := func() {
		once.Do(func() {
			if db.preferred.Add(-1) == 0 { // the writer looks at it when it has done something: see unprefer
				nothing := &job{fn: func(*Tx) error { return nil }, done: make(chan error, 1)}
				_ = db.enqueue(context.Background(), nothing) // else the connection has ended, and the lock with it
			}
		})
	}
	for held := false; !held; { // a turn that had begun before may have taken it along
		if err := db.classify(db.submit(ctx, &job{fn: func(tx *Tx) error { held = tx.c.preferred; return nil }})); err != nil {
			give()
			return nil, err
		}
	}
	late := time.AfterFunc(preferFor, give)
	return func() { late.Stop(); give() }, nil
}

// unprefer gives the preference back that nobody needs any more. That is not left to the next turn: what tells of it may be done in a turn that had
// begun before, and the next one may be far away.
func (w *writer) unprefer() {
	if w.c == nil || !w.c.preferred || w.db.preferred.Load() > 0 {
		return
	}
	if err := w.c.plain(context.Background(), unpreferSQL); err != nil {
		w.db.drop(w.c) // and the lock goes with it
		w.c = nil
		return
	}
	w.c.preferred = false
}

func turnSQL() string { return fmt.Sprintf(prepareTurnSQL, turnReach) }

// errTurn tells that the log was written into by somebody whose turn it was not: a node of a version that knows only the counter row. Beside
// such a one all stays right, for the row still orders the commits. What was read at the turn may be out of date by the time the row is
// locked; then the row is not raised, nothing of the statement is kept, and the batch is tried once more behind a lock of the row. The two may
// wait for each other in a circle over another row; PostgreSQL breaks it, and the one that loses tries again.
var errTurn = fmt.Errorf("%w: the log has moved on meanwhile", ErrUnavailable)

// takeTurn begins a transaction and waits until no other node writes.
func (w *writer) takeTurn(ctx context.Context) (err error) {
	db, c := w.db, w.c
	if !c.turns {
		if _, err := c.c.ExecContext(ctx, setTurnsSQL+prepareLockSQL+turnSQL()); err != nil {
			return err
		}
		c.turns = true
	}
	then := db.marks.Mark()
	since := w.seen
	if since == 0 {
		since = then.Pos
	}
	prefer := ""
	if db.preferred.Load() > 0 && !c.preferred {
		prefer, c.preferred = preferSQL, true // perhaps, even if what follows fails
	}
	t, heads, err := w.readTurn(ctx, fmt.Sprintf(beginTurnSQL, prefer, since))
	if err == nil {
		err = db.marks.compare(then, t.pos, t.backfill, t.epoch)
	}
	if err != nil {
		w.rollback(err) // it may have begun, and waited in vain
		return err
	}
	if w.moved == nil || len(w.moved) > maxMoved || t.pos-since > turnReach { // the last: more rooms may have moved on than are told
		w.moved = map[int64]Head{}
	}
	maps.Copy(w.moved, heads)
	w.turn, w.seen, w.shared = t, t.pos, t.pos != w.seen
	return nil
}

// readTurn begins a transaction by several statements in one round trip, and reads the heads of the rooms that others have written into.
func (w *writer) readTurn(ctx context.Context, q string) (t *turn, heads map[int64]Head, err error) {
	w.db.stats.statements.Add(1)
	heads = map[int64]Head{}
	err = w.c.raw(func(c *pgx.Conn) error {
		results := c.PgConn().Exec(ctx, q)
		for results.NextResult() {
			rows := results.ResultReader()
			turns := len(rows.FieldDescriptions()) == turnColumns // else the locks
			for rows.NextRow() {
				if !turns {
					continue
				}
				t = &turn{}
				if err := readMoved(rows.Values(), t, heads); err != nil {
					return errors.Join(err, results.Close())
				}
			}
		}
		return results.Close()
	})
	if err == nil && t == nil {
		err = errors.New("storage: the log has no position")
	}
	return t, heads, err
}

// readMoved reads the position, and the head of one room where there is one, as PostgreSQL writes them.
func readMoved(row [][]byte, t *turn, heads map[int64]Head) (err error) {
	number := func(i int) (n int64) {
		if row[i] != nil && err == nil {
			n, err = strconv.ParseInt(string(row[i]), 10, 64)
		}
		return n
	}
	*t = turn{number(0), number(1), number(2)}
	if row[3] == nil || err != nil {
		return err
	}
	num, h := number(3), Head{Name: string(row[4]), Depth: number(6), LastPos: number(8), StatePos: number(9)}
	if root, ok := bytes.CutPrefix(row[7], []byte(`\x`)); err == nil && (!ok || len(root) != 2*len(h.StateRoot)) && len(root) > 0 {
		err = fmt.Errorf("storage: room %d has a state root of %d characters", num, len(root))
	} else if err == nil {
		_, err = hex.Decode(h.StateRoot[:], root)
	}
	if err != nil {
		return err
	}
	h.Extremities, err = parseExtremities(string(row[5]))
	heads[num] = h
	return err
}

// look reads the heads of the rooms of a batch, after a conflict.
func (w *writer) look(tx *Tx, list []*Append) error {
	var nums []int64
	for _, a := range list {
		if a.Room.num != 0 {
			nums = append(nums, a.Room.num)
		}
	}
	rooms, err := tx.rooms(selectRoomSQL+`WHERE r.room_num INTSET($1)`, tx.set(nums))
	for _, r := range rooms {
		w.moved[r.num] = r.Head
	}
	return err
}

// rebase puts appends on the heads that their rooms have moved to, as far as that is known. What cannot be put there is left as it is: the
// room may have moved on to the very head that it was built on, and whether it has is compared when it is stored.
func rebase(list []*Append, moved map[int64]Head) error {
	var own map[int64]Head // by this batch
	for _, a := range list {
		h, ok := moved[a.Room.num]
		if !ok {
			continue
		}
		if o, ok := own[a.Room.num]; ok {
			h = o
		}
		if h.Name != a.Room.Head.Name && a.Rebase != nil && h.StateRoot == a.Room.Head.StateRoot {
			if a.Rebase(h) != nil {
				return &conflictError{a.Room.ID}
			}
			r := *a.Room
			r.Head, a.Room = h, &r
		}
		if own == nil {
			own = map[int64]Head{}
		}
		own[a.Room.num] = a.Head
	}
	return nil
}

// failRoom answers everything that goes into a room, and returns the rest of the batch.
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

// reserve takes positions at a turn. They count when the insertion that is returned was made.
func (tx *Tx) reserve(forward, back int64) (last, lastBack int64, counter insertion) {
	t := tx.turn
	last, lastBack = t.pos+forward, t.backfill+back
	row := []any{last, lastBack, t.pos, t.backfill}
	return last, lastBack, insertion{raiseTurnSQL, []string{"BIGINT", "BIGINT", "BIGINT", "BIGINT"}, raiseTurnTail, [][]any{row}, func(int64) {
		if forward > 0 {
			tx.first, tx.last = t.pos+1, last
		}
		if back > 0 {
			tx.history = lastBack
		}
		tx.turn = nil // what comes later in the transaction raises the row
	}}
}
