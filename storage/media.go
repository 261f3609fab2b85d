package storage

import (
	"database/sql"
	"errors"

	"hansa/matrix"
)

// Media is one piece of content that a user of a tenant uploaded or is going to.
type Media struct {
	Tenant    matrix.ServerName
	ID        string
	UserID    matrix.UserID
	CreatedTS int64
	// ExpiresTS is until when the content has to be there, 0 once it is.
	ExpiresTS int64
	// File is the name of the file with the content, empty while there is none.
	File string
	// Type is the content type, Name the file name, which may be empty.
	Type, Name string
	Size       int64
	SHA256     []byte
}

// Thumbnail is a picture made of a piece of media, or the reason why there is none.
type Thumbnail struct {
	// Variant says which of the few sizes it is.
	Variant string
	File    string
	Type    string
	Size    int64
	SHA256  []byte
	// Failure is why it could not be made, empty when it was.
	Failure string
}

// MediaFile names a file below the folder of a tenant.
type MediaFile struct {
	Tenant matrix.ServerName
	File   string
}

const selectMediaSQL = `SELECT tenant, media_id, user_id, created_ts, expires_ts, file, content_type, filename, size, sha256 FROM media `

// LoadMedia returns a piece of media, or ErrNotFound.
func (tx *Tx) LoadMedia(tenant matrix.ServerName, id string) (*Media, error) {
	m := &Media{}
	err := tx.row(selectMediaSQL+`WHERE tenant = $1 AND media_id = $2`, []any{string(tenant), dbText(id)},
		&m.Tenant, &m.ID, &m.UserID, &m.CreatedTS, &m.ExpiresTS, &m.File, &m.Type, &m.Name, &m.Size, &m.SHA256)
	if err != nil {
		return nil, err
	}
	m.UserID, m.Type, m.Name = matrix.UserID(goText(string(m.UserID))), goText(m.Type), goText(m.Name)
	return m, nil
}

const insertMediaSQL = `INSERT INTO media (tenant, media_id, user_id, created_ts, expires_ts, file, content_type, filename, size, sha256)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`

// InsertMedia adds a piece of media, with its content or, when File is empty, as a promise that holds until ExpiresTS.
func (tx *Tx) InsertMedia(m *Media) error {
	_, err := tx.exec(insertMediaSQL, string(m.Tenant), m.ID, dbText(string(m.UserID)), m.CreatedTS, m.ExpiresTS, m.File, dbText(m.Type),
		dbText(m.Name), m.Size, m.SHA256)
	return err
}

const fillMediaSQL = `UPDATE media SET expires_ts = 0, file = $1, content_type = $2, filename = $3, size = $4, sha256 = $5
	WHERE tenant = $6 AND media_id = $7 AND user_id = $8 AND expires_ts > $9`

// FillMedia gives a promised piece of media its content. ok is false when there is no such promise of the user any more.
func (tx *Tx) FillMedia(m *Media, now int64) (ok bool, err error) {
	n, err := tx.exec(fillMediaSQL, m.File, dbText(m.Type), dbText(m.Name), m.Size, m.SHA256, string(m.Tenant), m.ID, dbText(string(m.UserID)), now)
	return n > 0, err
}

// CountPendingMedia returns how many promises of a user are neither kept nor over.
func (tx *Tx) CountPendingMedia(user matrix.UserID, now int64) (n int64, err error) {
	err = tx.row(`SELECT count(*) FROM media WHERE user_id = $1 AND expires_ts > 0 AND expires_ts > $2`, []any{dbText(string(user)), now}, &n)
	return n, err
}

// DropExpiredMedia forgets promises that were not kept before a time.
func (tx *Tx) DropExpiredMedia(before int64) (int64, error) {
	return tx.exec(`DELETE FROM media WHERE expires_ts > 0 AND expires_ts <= $1`, before)
}

const (
	removeUserMediaSQL = `INSERT INTO media_removals (tenant, file, removed_ts)
		SELECT tenant, file, CAST($1 AS BIGINT) FROM media WHERE user_id = $2 AND file <> '' ON CONFLICT (tenant, file) DO NOTHING`
	removeUserThumbnailsSQL = `INSERT INTO media_removals (tenant, file, removed_ts)
		SELECT t.tenant, t.file, CAST($1 AS BIGINT) FROM media_thumbnails t JOIN media m ON m.tenant = t.tenant AND m.media_id = t.media_id
		WHERE m.user_id = $2 AND t.file <> '' ON CONFLICT (tenant, file) DO NOTHING`
	deleteUserThumbnailsSQL = `DELETE FROM media_thumbnails WHERE EXISTS (SELECT 1 FROM media m
		WHERE m.tenant = media_thumbnails.tenant AND m.media_id = media_thumbnails.media_id AND m.user_id = $1)`
	deleteUserMediaSQL = `DELETE FROM media WHERE user_id = $1`
)

// DeleteUserMedia removes all media of a user and notes their files for removal. It returns how many there were.
func (tx *Tx) DeleteUserMedia(user matrix.UserID) (int64, error) {
	u := dbText(string(user))
	for _, q := range []string{removeUserThumbnailsSQL, removeUserMediaSQL} {
		if _, err := tx.exec(q, tx.nowMS(), u); err != nil {
			return 0, err
		}
	}
	if _, err := tx.exec(deleteUserThumbnailsSQL, u); err != nil {
		return 0, err
	}
	return tx.exec(deleteUserMediaSQL, u)
}

// LoadThumbnail returns a thumbnail of a piece of media, or ErrNotFound.
func (tx *Tx) LoadThumbnail(tenant matrix.ServerName, id, variant string) (*Thumbnail, error) {
	t := &Thumbnail{Variant: variant}
	err := tx.row(`SELECT file, content_type, size, sha256, failure FROM media_thumbnails WHERE tenant = $1 AND media_id = $2 AND variant = $3`,
		[]any{string(tenant), dbText(id), variant}, &t.File, &t.Type, &t.Size, &t.SHA256, &t.Failure)
	if err != nil {
		return nil, err
	}
	return t, nil
}

const insertThumbnailSQL = `INSERT INTO media_thumbnails (tenant, media_id, variant, file, content_type, size, sha256, failure, created_ts)
	SELECT tenant, media_id, CAST($3 AS TEXT), CAST($4 AS TEXT), CAST($5 AS TEXT), CAST($6 AS BIGINT), CAST($7 AS BYTEA), CAST($8 AS TEXT), CAST($9 AS BIGINT)
	FROM media WHERE tenant = $1 AND media_id = $2 ON CONFLICT (tenant, media_id, variant) DO NOTHING`

// InsertThumbnail keeps a thumbnail. ok is false when another was faster or the media is gone.
func (tx *Tx) InsertThumbnail(tenant matrix.ServerName, id string, t *Thumbnail) (ok bool, err error) {
	n, err := tx.exec(insertThumbnailSQL, string(tenant), id, t.Variant, t.File, t.Type, t.Size, t.SHA256, t.Failure, tx.nowMS())
	return n > 0, err
}

// DeleteThumbnail forgets a thumbnail, to be made anew.
func (tx *Tx) DeleteThumbnail(tenant matrix.ServerName, id string, t *Thumbnail) error {
	_, err := tx.exec(`DELETE FROM media_thumbnails WHERE tenant = $1 AND media_id = $2 AND variant = $3 AND file = $4`, string(tenant), id, t.Variant, t.File)
	return err
}

const dropStrayThumbnailsSQL = `DELETE FROM media_thumbnails WHERE NOT EXISTS (SELECT 1 FROM media m
	WHERE m.tenant = media_thumbnails.tenant AND m.media_id = media_thumbnails.media_id)`

// DropStrayThumbnails forgets thumbnails of media that were removed while the thumbnail was made.
func (tx *Tx) DropStrayThumbnails() (int64, error) { return tx.exec(dropStrayThumbnailsSQL) }

// ListMediaRemovals returns files that are to be removed.
func (tx *Tx) ListMediaRemovals(limit int) ([]MediaFile, error) {
	return tx.mediaFiles(`SELECT tenant, file FROM media_removals ORDER BY tenant, file LIMIT $1`, limit)
}

// DropMediaRemovals forgets files that were removed.
func (tx *Tx) DropMediaRemovals(tenant matrix.ServerName, files []string) error {
	_, err := tx.exec(`DELETE FROM media_removals WHERE tenant = $1 AND file SET($2)`, string(tenant), setOf(tx, files))
	return err
}

const knownMediaFilesSQL = `SELECT tenant, file FROM media WHERE tenant = $1 AND media_id SET($2)
	UNION ALL SELECT tenant, file FROM media_thumbnails WHERE tenant = $1 AND media_id SET($2)`

// FindMediaFiles returns the names of the files that belong to pieces of media.
func (tx *Tx) FindMediaFiles(tenant matrix.ServerName, ids []string) (map[string]bool, error) {
	list, err := tx.mediaFiles(knownMediaFilesSQL, string(tenant), setOf(tx, ids))
	out := make(map[string]bool, len(list))
	for _, f := range list {
		out[f.File] = true
	}
	return out, err
}

func (tx *Tx) mediaFiles(q string, args ...any) (out []MediaFile, err error) {
	err = tx.query(func(r *sql.Rows) error {
		var f MediaFile
		if err := r.Scan(&f.Tenant, &f.File); err != nil {
			return err
		}
		out = append(out, f)
		return nil
	}, q, args...)
	return out, err
}

// FindMedia is LoadMedia for media that may be absent.
func (tx *Tx) FindMedia(tenant matrix.ServerName, id string) (*Media, bool, error) {
	m, err := tx.LoadMedia(tenant, id)
	if errors.Is(err, ErrNotFound) {
		return nil, false, nil
	}
	return m, err == nil, err
}
