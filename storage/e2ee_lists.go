package storage

import (
	"database/sql"

	"hansa/matrix"
)

const (
	// A user shares a room with another one where both are joined.
	sharesSQL = `EXISTS (SELECT 1 FROM memberships x JOIN memberships y ON y.room_num = x.room_num
		WHERE x.user_id = c.user_id AND x.membership = 'join' AND y.user_id = $1 AND y.membership = 'join')`

	changedListsSQL = `SELECT c.user_id FROM device_list_changes c WHERE c.pos > $2 AND c.pos <= $3 AND (c.user_id = $1 OR ` + sharesSQL + `)
		UNION SELECT s.target_id FROM key_signatures s WHERE s.signer_id = $1 AND s.pos > $2 AND s.pos <= $3
		UNION SELECT b.user_id FROM memberships a JOIN memberships b ON b.room_num = a.room_num
			WHERE a.user_id = $1 AND a.membership = 'join' AND b.membership = 'join' AND b.user_id <> $1
			AND ((a.pos > $2 AND a.pos <= $3) OR (b.pos > $2 AND b.pos <= $3))`

	leftListsSQL = `SELECT c.user_id FROM (
		SELECT b.user_id FROM memberships a JOIN memberships b ON b.room_num = a.room_num
			WHERE a.user_id = $1 AND a.membership = 'join' AND b.membership IN ('leave', 'ban') AND b.pos > $2 AND b.pos <= $3
		UNION SELECT b.user_id FROM memberships a JOIN memberships b ON b.room_num = a.room_num
			WHERE a.user_id = $1 AND a.membership IN ('leave', 'ban') AND a.pos > $2 AND a.pos <= $3 AND b.membership = 'join'
		) c WHERE c.user_id <> $1 AND NOT ` + sharesSQL
)

// LoadDeviceLists returns, for a range of positions, the users whose keys a viewer must ask for again (their devices or keys
// changed, the viewer signed them, or they came to share a room), and those with whom the viewer shares no room any more.
// A change of a profile in the range counts as joining.
func (tx *Tx) LoadDeviceLists(viewer matrix.UserID, since, upto int64) (changed, left []matrix.UserID, err error) {
	if changed, err = tx.userIDs(changedListsSQL, dbText(string(viewer)), since, upto); err != nil {
		return nil, nil, err
	}
	left, err = tx.userIDs(leftListsSQL, dbText(string(viewer)), since, upto)
	return changed, left, err
}

// LoadSignedSince returns whose keys a user signed in a range of positions.
func (tx *Tx) LoadSignedSince(signer matrix.UserID, since, upto int64) ([]matrix.UserID, error) {
	return tx.userIDs(`SELECT DISTINCT target_id FROM key_signatures WHERE signer_id = $1 AND pos > $2 AND pos <= $3`, dbText(string(signer)), since, upto)
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
