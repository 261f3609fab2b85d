package storage

import (
	"database/sql"

	"hansa/matrix"
)

// PutRemoteMedia keeps a copy of media of another server: m.Tenant is that server, and nobody here uploaded it. ok is false when there is
// one already.
func (tx *Tx) PutRemoteMedia(m *Media) (ok bool, err error) {
	n, err := tx.exec(insertMediaSQL+` ON CONFLICT (tenant, media_id) DO NOTHING`, string(m.Tenant), m.ID, "", m.CreatedTS, 0, m.File, dbText(m.Type),
		dbText(m.Name), m.Size, m.SHA256)
	if err != nil || n == 0 {
		return false, err
	}
	_, err = tx.exec(`INSERT INTO remote_media (server, media_id, size, used_ts) VALUES ($1, $2, $3, $4)
		ON CONFLICT (server, media_id) DO UPDATE SET size = excluded.size, used_ts = excluded.used_ts`, string(m.Tenant), m.ID, m.Size, tx.nowMS())
	return true, err
}

// TouchRemoteMedia notes that a copy was used, if that was noted last before a time in ms.
func (tx *Tx) TouchRemoteMedia(server matrix.ServerName, id string, before int64) error {
	_, err := tx.exec(`UPDATE remote_media SET used_ts = $3 WHERE server = $1 AND media_id = $2 AND used_ts < $4`, string(server), id, tx.nowMS(), before)
	return err
}

// SumRemoteMedia returns how many bytes the copies of media of other servers have.
func (tx *Tx) SumRemoteMedia() (n int64, err error) {
	err = tx.row(`SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM remote_media`, nil, &n)
	return n, err
}

// ListUnusedMedia returns the copies that have not been used for the longest time.
func (tx *Tx) ListUnusedMedia(limit int) ([]Media, error) {
	return tx.remoteMedia(`SELECT server, media_id, size FROM remote_media ORDER BY used_ts, server, media_id LIMIT $1`, limit)
}

// ListMediaServers returns the servers of which there are copies.
func (tx *Tx) ListMediaServers() ([]matrix.ServerName, error) {
	return tx.serverNames(`SELECT DISTINCT server FROM remote_media ORDER BY 1`)
}

// ListServerMedia returns copies of media of one server.
func (tx *Tx) ListServerMedia(server matrix.ServerName, limit int) ([]Media, error) {
	return tx.remoteMedia(`SELECT server, media_id, size FROM remote_media WHERE server = $1 ORDER BY media_id LIMIT $2`, string(server), limit)
}

func (tx *Tx) remoteMedia(q string, args ...any) ([]Media, error) {
	var out []Media
	err := tx.query(func(r *sql.Rows) error {
		var m Media
		if err := r.Scan(&m.Tenant, &m.ID, &m.Size); err != nil {
			return err
		}
		out = append(out, m)
		return nil
	}, q, args...)
	return out, err
}

const (
	removeRemoteMediaSQL = `INSERT INTO media_removals (tenant, file, removed_ts)
		SELECT tenant, file, CAST($1 AS BIGINT) FROM media WHERE tenant = $2 AND media_id SET($3) AND file <> '' ON CONFLICT (tenant, file) DO NOTHING`
	removeRemoteThumbnailsSQL = `INSERT INTO media_removals (tenant, file, removed_ts)
		SELECT tenant, file, CAST($1 AS BIGINT) FROM media_thumbnails WHERE tenant = $2 AND media_id SET($3) AND file <> '' ON CONFLICT (tenant, file) DO NOTHING`
)

// DropRemoteMedia removes copies of media of a server with their thumbnails, and notes the files for removal.
func (tx *Tx) DropRemoteMedia(server matrix.ServerName, ids []string) error {
	set := setOf(tx, ids)
	for _, q := range []string{removeRemoteThumbnailsSQL, removeRemoteMediaSQL} {
		if _, err := tx.exec(q, tx.nowMS(), string(server), set); err != nil {
			return err
		}
	}
	for _, q := range []string{`DELETE FROM media_thumbnails WHERE tenant = $1 AND media_id SET($2)`, `DELETE FROM media WHERE tenant = $1 AND media_id SET($2)`,
		`DELETE FROM remote_media WHERE server = $1 AND media_id SET($2)`} {
		if _, err := tx.exec(q, string(server), set); err != nil {
			return err
		}
	}
	return nil
}
