package storage

import (
	"database/sql"

	"hansa/matrix"
)

// Gap is a parent that a stored event names and that is not stored itself.
type Gap struct {
	Parent, Child matrix.EventID
	// ChildPos is the position of the child.
	ChildPos int64
}

// AddMissingParents remembers that a stored event names parents that are not stored yet.
func (tx *Tx) AddMissingParents(child matrix.EventID, parents []matrix.EventID) error {
	if len(parents) == 0 {
		return nil
	}
	var room int64
	if err := tx.row(`SELECT room_num FROM events WHERE event_id = $1`, []any{string(child)}, &room); err != nil {
		return err
	}
	rows := make([][]any, len(parents))
	for i, p := range parents {
		rows[i] = []any{string(p), string(child), room}
	}
	return tx.bulk(`INSERT INTO missing_parents (event_id, child_id, room_num)`, []string{"TEXT", "TEXT", "BIGINT"}, `ON CONFLICT DO NOTHING`, rows, nil)
}

// LoadGaps returns up to limit gaps in the graph of a room, those of the newest children first. What only rejected and softly failed events lead
// to (flags 1 and 2) is no part of the room's history.
func (tx *Tx) LoadGaps(room matrix.RoomID, limit int) ([]Gap, error) {
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
		WHERE m.room_num = (SELECT room_num FROM rooms WHERE room_id = $1) AND e.flags & 3 = 0 ORDER BY e.pos DESC LIMIT $2`, string(room), limit)
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
