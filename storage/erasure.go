package storage

import (
	"database/sql"

	"hansa/matrix"
)

// PutErased notes that a user wants what they sent to be told to nobody who comes into a room later. The first time counts.
func (tx *Tx) PutErased(user matrix.UserID) error {
	pos, err := tx.Position()
	if err != nil {
		return err
	}
	_, err = tx.exec(`INSERT INTO erased_users (user_id, pos) VALUES ($1, $2) ON CONFLICT (user_id) DO NOTHING`, dbText(string(user)), pos)
	return err
}

// LoadErased returns those of the users who are erased, and the position of the log at which they were.
func (tx *Tx) LoadErased(users []matrix.UserID) (map[matrix.UserID]int64, error) {
	if len(users) == 0 {
		return nil, nil
	}
	out := map[matrix.UserID]int64{}
	err := tx.query(func(r *sql.Rows) error {
		var user string
		var pos int64
		if err := r.Scan(&user, &pos); err != nil {
			return err
		}
		out[matrix.UserID(goText(user))] = pos
		return nil
	}, `SELECT user_id, pos FROM erased_users WHERE user_id SET($1)`, setOf(tx, users))
	return out, err
}
