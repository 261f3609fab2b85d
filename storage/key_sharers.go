package storage

import (
	"database/sql"

	"hansa/matrix"
)

// FindKeySharers returns up to 10 other servers that have used one of some public keys.
func (tx *Tx) FindKeySharers(server matrix.ServerName, public [][]byte) ([]matrix.ServerName, error) {
	var out []matrix.ServerName
	if len(public) == 0 {
		return nil, nil
	}
	err := tx.query(func(r *sql.Rows) error {
		var name string
		if err := r.Scan(&name); err != nil {
			return err
		}
		out = append(out, matrix.ServerName(name))
		return nil
	}, `SELECT DISTINCT server FROM server_keys WHERE server <> $1 AND public_key BLOBSET($2) ORDER BY server LIMIT 10`, string(server), tx.set(public))
	return out, err
}
