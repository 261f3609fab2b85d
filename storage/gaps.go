package storage

import (
	"database/sql"

	"hansa/matrix"
)

// Hole names a place in a room's history where events are missing, by the first of the positions that are free for them.
type Hole int64

// NoHole is the place before everything that is known of a room.
const NoHole Hole = 0

// Gap is a parent that a stored event names and that is not stored itself.
type Gap struct {
	Parent, Child matrix.EventID
	// ChildPos is the position of the child.
	ChildPos int64
}

// addMissing remembers events that stored ones follow and that are not stored: rows of the parent, the child, the room and the hole.
func (tx *Tx) addMissing(rows [][]any) error {
	return tx.bulk(`INSERT INTO missing_parents (event_id, child_id, room_num, hole)`, []string{"TEXT", "TEXT", "BIGINT", "BIGINT"}, `ON CONFLICT DO NOTHING`,
		rows, nil)
}

// findHole finds out where the events of an append go that belong into a hole: what is in it already are the newest of those that were missing.
func (b *appendBatch) findHole(a *Append) error {
	n := int64(0)
	for i := range a.Events {
		if a.Events[i].Flags&(Outlier|Backfilled) == Backfilled {
			n++
		}
	}
	if a.Hole <= NoHole || n == 0 {
		return nil
	}
	var lowest int64
	err := b.tx.row(`SELECT COALESCE(MIN(pos), 0) FROM events WHERE room_num = $1 AND pos >= $2`, []any{a.Room.num, int64(a.Hole)}, &lowest)
	if lowest-n >= int64(a.Hole) {
		b.holes[a] = lowest - 1
	}
	return err
}

// FindHole finds the newest hole in a room's history whose upper end is at or below a position: top is the position of the event above it. ok
// is false where there is none.
func (tx *Tx) FindHole(room matrix.RoomID, upto int64) (h Hole, top int64, ok bool, err error) {
	err = tx.query(func(r *sql.Rows) error { ok = true; return r.Scan(&top, &h) }, `SELECT e.pos, m.hole FROM missing_parents m
		JOIN events e ON e.event_id = m.child_id WHERE m.room_num = (SELECT room_num FROM rooms WHERE room_id = $1) AND m.hole > 0
		AND e.flags & 3 = 0 AND e.pos <= $2 ORDER BY e.pos DESC LIMIT 1`, string(room), upto)
	return h, top, ok, err
}

// LoadGaps returns up to limit gaps in the graph of a room that belong to one hole, those of the newest children first. What only rejected and softly failed events lead
// to (flags 1 and 2) is no part of the room's history.
func (tx *Tx) LoadGaps(room matrix.RoomID, h Hole, limit int) ([]Gap, error) {
	var out []Gap
	err := tx.query(func(r *sql.Rows) error {
		var parent, child string
		var g Gap
		if err := r.Scan(&parent, &child, &g.ChildPos); err != nil {
			return err
		}
		g.Parent, g.Child = matrix.EventID(parent), matrix.EventID(child)
		out = append(out, g)
		return nil
	}, `SELECT m.event_id, m.child_id, e.pos FROM missing_parents m JOIN events e ON e.event_id = m.child_id
		WHERE m.room_num = (SELECT room_num FROM rooms WHERE room_id = $1) AND e.flags & 3 = 0 AND m.hole = $2
		ORDER BY e.pos DESC LIMIT $3`, string(room), int64(h), limit)
	return out, err
}

// FillGap forgets that an event was missing.
func (tx *Tx) FillGap(parent matrix.EventID) error {
	_, err := tx.exec(`DELETE FROM missing_parents WHERE event_id = $1`, string(parent))
	return err
}

// FindEventFlags returns the flags of those of the events that are stored.
func (tx *Tx) FindEventFlags(ids []matrix.EventID) (map[matrix.EventID]Flags, error) {
	out := make(map[matrix.EventID]Flags, len(ids))
	if len(ids) == 0 {
		return out, nil
	}
	err := tx.query(func(r *sql.Rows) error {
		var id string
		var f Flags
		err := r.Scan(&id, &f)
		out[matrix.EventID(id)] = f
		return err
	}, `SELECT event_id, flags FROM events WHERE event_id SET($1)`, setOf(tx, ids))
	return out, err
}
