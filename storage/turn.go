package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"hansa/matrix"
)

// turn is where the log stands while this node alone writes into it (PostgreSQL). Nodes take turns by an advisory lock, and not by the
// counter row, so that a node can gather what it has to write until its turn comes; and one round trip gives it all that it has to
// know: others wait meanwhile. The row is still raised in the same transaction, so positions are gapless whoever writes.
type turn struct{ pos, backfill, epoch int64 }

// turnsApart is the shortest time between two turns of a node while others write, too: a turn costs the same however much is written at it.
const turnsApart = 4 * time.Millisecond

const (
	beginTurnSQL = `BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock(5162342481); EXECUTE hansa_turn(%d)`
	// What a turn begins with: the position, and the rooms that others have written into since the last one. It is said so that no plan but
	// by the keys is possible, however little PostgreSQL knows of the tables when it makes one.
	prepareTurnSQL = `SET enable_seqscan = off; PREPARE hansa_turn (BIGINT) AS
		SELECT l.pos, l.backfill, l.epoch, r.room_num, r.head, r.extremities, r.depth, r.state_root, r.last_pos, r.state_pos FROM log_position l
		LEFT JOIN (SELECT DISTINCT n.room_num FROM (SELECT e.room_num FROM events e WHERE e.pos > $1 ORDER BY e.pos LIMIT 256) AS n) AS m ON TRUE
		LEFT JOIN LATERAL (SELECT * FROM rooms WHERE rooms.room_num = m.room_num OFFSET 0) AS r ON TRUE WHERE l.id = 1`
	raiseTurnSQL  = `INSERT INTO log_position (id, pos, backfill, epoch)`
	raiseTurnTail = `ON CONFLICT (id) DO UPDATE SET pos = excluded.pos, backfill = excluded.backfill WHERE log_position.pos = excluded.epoch RETURNING pos`
)

// errTurn tells that the log was written into by somebody whose turn it was not.
var errTurn = fmt.Errorf("%w: the log has moved on meanwhile", ErrUnavailable)

// takeTurn begins a transaction and waits until no other node writes.
func (w *writer) takeTurn(ctx context.Context) (err error) {
	db, c := w.db, w.c
	if !c.turns {
		if _, err := c.c.ExecContext(ctx, prepareTurnSQL); err != nil {
			return err
		}
		c.turns = true
	}
	then := db.marks.Mark()
	if w.moved == nil || len(w.moved) > maxMoved {
		w.moved = map[int64]Head{}
	}
	since := w.seen
	if since == 0 {
		since = then.Pos
	}
	w.turn, err = w.readTurn(ctx, fmt.Sprintf(beginTurnSQL, since))
	if err == nil {
		err = db.marks.compare(then, w.turn.pos, w.turn.backfill, w.turn.epoch)
	}
	if err != nil { // it may have begun, and waited in vain
		return errors.Join(err, c.plain(ctx, "ROLLBACK"))
	}
	w.shared, w.seen = w.turn.pos > since, w.turn.pos
	return nil
}

func (w *writer) readTurn(ctx context.Context, q string) (t *turn, err error) {
	w.db.stats.statements.Add(1)
	rows, err := w.c.c.QueryContext(ctx, q)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for ok := true; ok; ok = rows.NextResultSet() {
		columns, err := rows.Columns()
		if err != nil {
			return nil, err
		}
		for rows.Next() {
			if len(columns) == 1 {
				continue // the lock
			}
			t = &turn{}
			if err := w.readMoved(rows, t); err != nil {
				return nil, err
			}
		}
		if err := rows.Err(); err != nil {
			return nil, err
		}
	}
	if t == nil {
		return nil, errors.Join(rows.Err(), errors.New("storage: no position"))
	}
	return t, nil
}

func (w *writer) readMoved(rows *sql.Rows, t *turn) error {
	var num, depth, last, state sql.NullInt64
	var name, ext sql.NullString
	var root []byte
	if err := rows.Scan(&t.pos, &t.backfill, &t.epoch, &num, &name, &ext, &depth, &root, &last, &state); err != nil || !num.Valid {
		return err
	}
	h := Head{Name: name.String, Depth: depth.Int64, LastPos: last.Int64, StatePos: state.Int64}
	copy(h.StateRoot[:], root)
	var err error
	h.Extremities, err = parseExtremities(ext.String)
	w.moved[num.Int64] = h
	return err
}

// look reads the heads of the rooms of a batch, after a conflict.
func (w *writer) look(batch []*job) error {
	var nums []int64
	for _, j := range batch {
		if j.ap != nil && j.ap.Room.num != 0 {
			nums = append(nums, j.ap.Room.num)
		}
	}
	return w.db.read(context.Background(), false, func(tx *Tx) error {
		rooms, err := tx.rooms(selectRoomSQL+`WHERE r.room_num INTSET($1)`, tx.set(nums))
		for _, r := range rooms {
			w.moved[r.num] = r.Head
		}
		return err
	})
}

// rebase puts appends on the heads that their rooms have now. These stay until the transaction ends.
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
		if h.Name != a.Room.Head.Name {
			if a.Rebase == nil || h.StateRoot != a.Room.Head.StateRoot || a.Rebase(h) != nil {
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
	row := []any{int64(1), last, lastBack, t.pos}
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
