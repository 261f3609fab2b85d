package storage

import (
	"database/sql"
	"fmt"

	"hansa/matrix"
)

// The partial index events_withheld serves queries that say `(e.flags & 4) <> 0` in these very words.

// LoadWithheld returns up to limit events that policy withholds, of all rooms, in the order of rooms and positions; after is the room and the
// position of the last one of the page before, zero for the first.
func (tx *Tx) LoadWithheld(after WithheldMark, limit int) ([]*Event, WithheldMark, error) {
	next := after
	var ids []string
	err := tx.query(func(r *sql.Rows) error {
		var id string
		if err := r.Scan(&next.room, &next.pos, &id); err != nil {
			return err
		}
		ids = append(ids, id)
		return nil
	}, `SELECT e.room_num, e.pos, e.event_id FROM events e WHERE (e.flags & 4) <> 0 AND (e.room_num, e.pos) > ($1, $2)
		ORDER BY e.room_num, e.pos LIMIT $3`, after.room, after.pos, limit)
	if err != nil || len(ids) == 0 {
		return nil, next, err
	}
	list, err := tx.events(selectEventSQL+`WHERE e.event_id SET($1) ORDER BY e.room_num, e.pos`, tx.set(ids))
	return list, next, err
}

// WithheldMark is a place in the list of withheld events; the zero value is before all of them.
type WithheldMark struct{ room, pos int64 }

// Release takes the mark from an event that policy withheld. Where that makes it visible, the event moves to the newest position, so that
// everybody who reads the log meets it once, as if it came now; history from before this server was in the room only appears.
func (tx *Tx) Release(e *Event) error {
	e.Flags &^= Withheld
	if _, err := tx.exec(`UPDATE events SET flags = $2 WHERE event_id = $1`, string(e.ID), int64(e.Flags)); err != nil {
		return err
	}
	if !e.Flags.Hidden() && e.Flags&Backfilled == 0 {
		if err := tx.moveToEnd(e); err != nil {
			return err
		}
	}
	return tx.Announce(NoticeWithheld, string(e.RoomID))
}

func (tx *Tx) moveToEnd(e *Event) error {
	moved := *e
	pos, err := tx.emit(Entry{Kind: KindEvent, Event: &moved, RoomID: e.RoomID})
	if err != nil {
		return err
	}
	moved.Pos, e.Pos = pos, pos
	n, err := tx.exec(`UPDATE events SET pos = $2 WHERE event_id = $1`, string(e.ID), pos)
	if err == nil && n != 1 {
		err = fmt.Errorf("event %s is not stored", e.ID)
	}
	if err != nil {
		return err
	}
	const room = `(SELECT room_num FROM rooms WHERE room_id = $1)`
	for _, q := range []string{
		`UPDATE current_state SET pos = $2 WHERE room_num = ` + room + ` AND event_id = $3`,
		`UPDATE memberships SET pos = $2 WHERE room_num = ` + room + ` AND event_id = $3`,
	} {
		if _, err := tx.exec(q, string(e.RoomID), pos, string(e.ID)); err != nil {
			return err
		}
	}
	if e.StateKey == nil {
		_, err = tx.exec(`UPDATE rooms SET last_pos = $2 WHERE room_id = $1`, string(e.RoomID), pos)
		return err
	}
	_, err = tx.exec(`UPDATE rooms SET last_pos = $2, state_pos = $2 WHERE room_id = $1`, string(e.RoomID), pos)
	return err
}

// Redact takes the content of a stored event away, and tells whoever shows it.
func (tx *Tx) Redact(r Redaction) error {
	if err := tx.redact(r); err != nil {
		return err
	}
	return tx.Announce(NoticeRedaction, string(r.Target))
}

// LoadForeignRooms returns up to limit rooms after a mark in which somebody of a server that is not among the given ones is joined or invited,
// or which have a server ACL, in the order of their making, and the mark of the next page.
func (tx *Tx) LoadForeignRooms(own []matrix.ServerName, after int64, limit int) ([]matrix.RoomID, int64, error) {
	var out []matrix.RoomID
	args := []any{after, limit}
	where := ""
	for i, name := range own {
		args = append(args, "%:"+likeText(string(name)))
		where += fmt.Sprintf(` AND m.user_id NOT LIKE $%d ESCAPE '\'`, i+3)
	}
	err := tx.query(func(r *sql.Rows) error {
		var id string
		if err := r.Scan(&after, &id); err != nil {
			return err
		}
		out = append(out, matrix.RoomID(id))
		return nil
	}, `SELECT r.room_num, r.room_id FROM rooms r WHERE r.room_num > $1 AND (EXISTS (SELECT 1 FROM memberships m
		WHERE m.room_num = r.room_num AND m.membership IN ('join', 'invite')`+where+`) OR EXISTS (SELECT 1 FROM current_state s
		WHERE s.room_num = r.room_num AND s.type = 'm.room.server_acl' AND s.state_key = '')) ORDER BY r.room_num LIMIT $2`, args...)
	return out, after, err
}
