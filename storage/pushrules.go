package storage

import "hansa/matrix"

// LoadPushRules returns in what a user's push rules differ from the defaults, as it was stored, or ErrNotFound.
func (tx *Tx) LoadPushRules(user matrix.UserID) ([]byte, error) {
	var custom []byte
	err := tx.row(`SELECT custom FROM push_rules WHERE user_id = $1`, []any{dbText(string(user))}, &custom)
	return custom, err
}

// PutPushRules stores in what a user's push rules differ from the defaults.
func (tx *Tx) PutPushRules(user matrix.UserID, custom []byte) error {
	_, err := tx.exec(`INSERT INTO push_rules (user_id, custom) VALUES ($1, $2) ON CONFLICT (user_id) DO UPDATE SET custom = excluded.custom`,
		dbText(string(user)), custom)
	return err
}

// DeletePushRules gives a user the defaults again.
func (tx *Tx) DeletePushRules(user matrix.UserID) error {
	_, err := tx.exec(`DELETE FROM push_rules WHERE user_id = $1`, dbText(string(user)))
	return err
}
