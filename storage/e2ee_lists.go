package storage

import (
	"database/sql"

	"hansa/matrix"
)

const (
	cameToShareSQL = `SELECT DISTINCT b.user_id FROM memberships a JOIN memberships b ON b.room_num = a.room_num
		WHERE a.user_id = $1 AND a.membership = 'join' AND b.membership = 'join' AND b.user_id <> $1
		AND ((a.pos > $2 AND a.pos <= $3) OR (b.pos > $2 AND b.pos <= $3))`

	ceasedToShareSQL = `SELECT c.user_id FROM (
		SELECT b.user_id FROM memberships a JOIN memberships b ON b.room_num = a.room_num
			WHERE a.user_id = $1 AND a.membership = 'join' AND b.membership IN ('leave', 'ban') AND b.pos > $2 AND b.pos <= $3
		UNION SELECT b.user_id FROM memberships a JOIN memberships b ON b.room_num = a.room_num
			WHERE a.user_id = $1 AND a.membership IN ('leave', 'ban') AND a.pos > $2 AND a.pos <= $3 AND b.membership = 'join'
		) c WHERE c.user_id <> $1 AND NOT EXISTS (SELECT 1 FROM memberships x JOIN memberships y ON y.room_num = x.room_num
			WHERE x.user_id = c.user_id AND x.membership = 'join' AND y.user_id = $1 AND y.membership = 'join')`
)

// LoadSharingChanges returns with whom a user came to share a room in a range of positions, and with whom it shares none any more. A
// change of a profile in the range counts as joining.
func (tx *Tx) LoadSharingChanges(user matrix.UserID, since, upto int64) (came, ceased []matrix.UserID, err error) {
	if came, err = tx.userIDs(cameToShareSQL, dbText(string(user)), since, upto); err != nil {
		return nil, nil, err
	}
	ceased, err = tx.userIDs(ceasedToShareSQL, dbText(string(user)), since, upto)
	return came, ceased, err
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
