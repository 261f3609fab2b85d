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

// LoadGaps returns up to limit gaps in the graph of a room, those of the newest children first.
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
	}, `SELECT m.event_id, m.child_id, e.pos FROM rooms r JOIN events e ON e.room_num = r.room_num JOIN missing_parents m ON m.child_id = e.event_id
		WHERE r.room_id = $1 ORDER BY e.pos DESC LIMIT $2`, string(room), limit)
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
