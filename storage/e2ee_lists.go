package storage

import (
	"database/sql"
	"math"

	"hansa/matrix"
	"hansa/matrix/event"
)

const (
	cameToShareSQL = `SELECT DISTINCT b.user_id FROM memberships a JOIN memberships b ON b.room_num = a.room_num
		WHERE a.user_id = $1 AND a.membership = 'join' AND b.membership = 'join' AND b.user_id <> $1
		AND (a.pos > $2 OR b.pos > $2)`

	sharesNoRoomSQL = `NOT EXISTS (SELECT 1 FROM memberships x JOIN memberships y ON y.room_num = x.room_num
			WHERE x.user_id = b.user_id AND x.membership = 'join' AND y.user_id = $1 AND y.membership = 'join')`

	ceasedToShareSQL = `SELECT r.room_id, b.user_id, b.membership, b.sender, b.event_id, a.pos, b.pos, 0
		FROM memberships a JOIN memberships b ON b.room_num = a.room_num JOIN rooms r ON r.room_num = b.room_num
		WHERE a.user_id = $1 AND a.membership = 'join' AND b.membership IN ('leave', 'ban') AND b.pos > $2 AND b.user_id <> $1
		AND ` + sharesNoRoomSQL

	leftRoomsSQL = selectMembersSQL + `WHERE m.user_id = $1 AND m.membership IN ('leave', 'ban') AND m.pos > $2`

	leftBehindSQL = `SELECT b.user_id FROM memberships b JOIN rooms r ON r.room_num = b.room_num
		WHERE r.room_id = $2 AND b.membership = 'join' AND b.pos < $3 AND b.user_id <> $1 AND ` + sharesNoRoomSQL
)

// LoadSharingChanges returns with whom a user came to share a room since a position, and with whom it shares none any more. A change of a
// profile counts as joining. Who came into a room after the user had left it, or left it before the user came, is nobody whom the user knows
// of. There is no end to the range but now: a membership that has changed again after an end would be missing.
func (tx *Tx) LoadSharingChanges(user matrix.UserID, since int64) (came, ceased []matrix.UserID, err error) {
	me := dbText(string(user))
	if came, err = tx.userIDs(cameToShareSQL, me, since); err != nil {
		return nil, nil, err
	}
	if ceased, err = tx.wentAway(user, since); err != nil {
		return nil, nil, err
	}
	left, err := tx.members(leftRoomsSQL, me, since)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range left { // a query for each room that was left: these are few
		_, end, err := tx.LastStay(m)
		if err != nil {
			return nil, nil, err
		}
		if end == nil || end.Pos <= since {
			continue
		}
		behind, err := tx.userIDs(leftBehindSQL, me, string(m.RoomID), end.Pos)
		if err != nil {
			return nil, nil, err
		}
		ceased = append(ceased, behind...)
	}
	return came, ceased, nil
}

const (
	// maxEnds is how many memberships are followed back, for all leavers at once, to find the end of the newest stay; maxReturns how many
	// memberships of the user are read of one room.
	maxEnds, maxReturns = 6, 2000
)

// wentAway returns who left a room while the user was in it.
func (tx *Tx) wentAway(user matrix.UserID, since int64) ([]matrix.UserID, error) {
	list, err := tx.members(ceasedToShareSQL, dbText(string(user)), since) // AuthRank is the position of the user's own membership
	if err != nil || len(list) == 0 {
		return nil, err
	}
	ends, err := tx.endsOfStays(list)
	if err != nil {
		return nil, err
	}
	there := map[matrix.RoomID]func(pos int64) bool{}
	var out []matrix.UserID
	for i, m := range list {
		switch end := ends[i]; {
		case end == nil || end.Pos <= since:
		case m.AuthRank < end.Pos:
			out = append(out, m.UserID)
		default: // the user came, or changed names, later
			if there[m.RoomID] == nil {
				if there[m.RoomID], err = tx.presentIn(m.RoomID, user, since); err != nil {
					return nil, err
				}
			}
			if there[m.RoomID](end.Pos) {
				out = append(out, m.UserID)
			}
		}
	}
	return out, nil
}

// endsOfStays finds, for memberships of users who are gone, the event by which each last stay ended, nil where there is none.
func (tx *Tx) endsOfStays(list []Member) ([]*Event, error) {
	at := make([]matrix.EventID, len(list))
	for i, m := range list {
		at[i] = m.EventID
	}
	last, ends := make([]*Event, len(list)), make([]*Event, len(list))
	for range maxEnds {
		events, err := tx.LoadEvents(at)
		if err != nil {
			return nil, err
		}
		again := false
		for i := range at {
			e := events[at[i]]
			switch {
			case e == nil:
				at[i] = ""
			case event.Membership(e.Event) == "join":
				ends[i], at[i] = last[i], ""
			default:
				last[i], at[i] = e, e.Replaces
				again = again || at[i] != ""
			}
		}
		if !again {
			break
		}
	}
	return ends, nil
}

// presentIn returns a function that tells whether a user was in a room at a position after since. Where that would take too long to
// find out, it says no.
func (tx *Tx) presentIn(room matrix.RoomID, user matrix.UserID, since int64) (func(pos int64) bool, error) {
	list, err := tx.LoadMemberships(room, user, since, math.MaxInt64, maxReturns)
	if err != nil || len(list) == 0 || len(list) == maxReturns {
		return func(int64) bool { return false }, err
	}
	before, err := tx.LoadEvents([]matrix.EventID{list[0].Replaces})
	if err != nil {
		return nil, err
	}
	first := before[list[0].Replaces]
	return func(pos int64) bool {
		in := first != nil && event.Membership(first.Event) == "join"
		for _, e := range list {
			if e.Pos > pos {
				break
			}
			in = event.Membership(e.Event) == "join"
		}
		return in
	}, nil
}

func (tx *Tx) userIDs(q string, args ...any) ([]matrix.UserID, error) {
	var out []matrix.UserID
	err := tx.query(func(r *sql.Rows) error {
		var u string
		if err := r.Scan(&u); err != nil {
			return err
		}
		out = append(out, matrix.UserID(goText(u)))
		return nil
	}, q, args...)
	return out, err
}
