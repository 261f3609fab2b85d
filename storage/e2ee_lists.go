package storage

import (
	"database/sql"

	"hansa/matrix"
)

const (
	cameToShareSQL = `SELECT DISTINCT b.user_id FROM memberships a JOIN memberships b ON b.room_num = a.room_num
		WHERE a.user_id = $1 AND a.membership = 'join' AND b.membership = 'join' AND b.user_id <> $1
		AND ((a.pos > $2 AND a.pos <= $3) OR (b.pos > $2 AND b.pos <= $3))`

	sharesNoRoomSQL = `NOT EXISTS (SELECT 1 FROM memberships x JOIN memberships y ON y.room_num = x.room_num
			WHERE x.user_id = b.user_id AND x.membership = 'join' AND y.user_id = $1 AND y.membership = 'join')`

	ceasedToShareSQL = `SELECT DISTINCT b.user_id FROM memberships a JOIN memberships b ON b.room_num = a.room_num
		WHERE a.user_id = $1 AND a.membership = 'join' AND b.membership IN ('leave', 'ban') AND b.pos > $2 AND b.pos <= $3 AND b.user_id <> $1
		AND ` + sharesNoRoomSQL

	leftRoomsSQL = selectMembersSQL + `WHERE m.user_id = $1 AND m.membership IN ('leave', 'ban') AND m.pos > $2 AND m.pos <= $3`

	leftBehindSQL = `SELECT b.user_id FROM memberships b JOIN rooms r ON r.room_num = b.room_num
		WHERE r.room_id = $2 AND b.membership = 'join' AND b.pos < $3 AND b.user_id <> $1 AND ` + sharesNoRoomSQL
)

// LoadSharingChanges returns with whom a user came to share a room in a range of positions, and with whom it shares none any more. A
// change of a profile in the range counts as joining. Who came into a room after the user had left it is nobody whom the user knows of.
func (tx *Tx) LoadSharingChanges(user matrix.UserID, since, upto int64) (came, ceased []matrix.UserID, err error) {
	me := dbText(string(user))
	if came, err = tx.userIDs(cameToShareSQL, me, since, upto); err != nil {
		return nil, nil, err
	}
	if ceased, err = tx.userIDs(ceasedToShareSQL, me, since, upto); err != nil {
		return nil, nil, err
	}
	left, err := tx.members(leftRoomsSQL, me, since, upto)
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
