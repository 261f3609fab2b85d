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

// ForeignMember tells that somebody of another server is joined to or invited into a room.
type ForeignMember struct {
	RoomID matrix.RoomID
	UserID matrix.UserID
	room   int64
}

// LoadForeignMembers returns up to limit people who are joined to or invited into rooms and whose servers are not among the given ones, in the
// order of rooms and names; after is the last of the page before, the zero value for the first.
func (tx *Tx) LoadForeignMembers(own []matrix.ServerName, after ForeignMember, limit int) ([]ForeignMember, error) {
	var out []ForeignMember
	args := []any{after.room, dbText(string(after.UserID)), limit}
	where := ""
	for i, name := range own {
		args = append(args, "%:"+likeText(string(name)))
		where += fmt.Sprintf(` AND m.user_id NOT LIKE $%d ESCAPE '\'`, i+4)
	}
	err := tx.query(func(r *sql.Rows) error {
		var m ForeignMember
		var room, user string
		if err := r.Scan(&m.room, &room, &user); err != nil {
			return err
		}
		m.RoomID, m.UserID = matrix.RoomID(room), matrix.UserID(goText(user))
		out = append(out, m)
		return nil
	}, `SELECT m.room_num, r.room_id, m.user_id FROM memberships m JOIN rooms r ON r.room_num = m.room_num
		WHERE (m.room_num, m.user_id) > ($1, $2) AND m.membership IN ('join', 'invite')`+where+` ORDER BY m.room_num, m.user_id LIMIT $3`, args...)
	return out, err
}

// LoadServerACLs returns the server ACLs of up to limit rooms after one, in the order in which the rooms were made, and the mark of the next page.
func (tx *Tx) LoadServerACLs(after int64, limit int) ([]*Event, int64, error) {
	var ids []string
	err := tx.query(func(r *sql.Rows) error {
		var id string
		if err := r.Scan(&after, &id); err != nil {
			return err
		}
		ids = append(ids, id)
		return nil
	}, `SELECT r.room_num, s.event_id FROM rooms r JOIN current_state s ON s.room_num = r.room_num AND s.type = 'm.room.server_acl' AND s.state_key = ''
		WHERE r.room_num > $1 ORDER BY r.room_num LIMIT $2`, after, limit)
	if err != nil || len(ids) == 0 {
		return nil, after, err
	}
	list, err := tx.events(selectEventSQL+`WHERE e.event_id SET($1)`, tx.set(ids))
	return list, after, err
}
