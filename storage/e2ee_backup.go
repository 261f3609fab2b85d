package storage

import (
	"database/sql"

	"hansa/matrix"
)

// KeyBackup is one version of a user's key backup.
type KeyBackup struct {
	Version   int64
	Algorithm string
	AuthData  []byte
	ETag      int64
	Count     int64
	Deleted   bool
}

// BackupSession is the encrypted key of one session in a backup.
type BackupSession struct {
	RoomID            string
	SessionID         string
	IsVerified        bool
	FirstMessageIndex int64
	ForwardedCount    int64
	Data              []byte
}

// BackupScope says which part of a backup: all of it, one room (RoomID), or one session of a room.
type BackupScope struct {
	RoomID    string
	SessionID string
}

const selectBackupSQL = `SELECT version, algorithm, auth_data, etag, key_count, deleted FROM key_backups `

func (tx *Tx) backup(q string, args ...any) (KeyBackup, error) {
	var b KeyBackup
	var algorithm string
	err := tx.row(q, args, &b.Version, &algorithm, &b.AuthData, &b.ETag, &b.Count, &b.Deleted)
	b.Algorithm = goText(algorithm)
	return b, err
}

// LoadCurrentBackup returns the newest version that is not deleted, or ErrNotFound.
func (tx *Tx) LoadCurrentBackup(user matrix.UserID) (KeyBackup, error) {
	return tx.backup(selectBackupSQL+`WHERE user_id = $1 AND deleted = 0 ORDER BY version DESC LIMIT 1`, dbText(string(user)))
}

// LoadBackup returns a version, which may be deleted, or ErrNotFound.
func (tx *Tx) LoadBackup(user matrix.UserID, version int64) (KeyBackup, error) {
	return tx.backup(selectBackupSQL+`WHERE user_id = $1 AND version = $2`, dbText(string(user)), version)
}

// InsertBackup makes a new version and returns its number. Numbers are never used again. The caller has locked the user.
func (tx *Tx) InsertBackup(user matrix.UserID, algorithm string, authData []byte) (int64, error) {
	var version int64
	err := tx.row(`INSERT INTO key_backups (user_id, version, algorithm, auth_data, etag, key_count, deleted)
		SELECT CAST($1 AS TEXT), COALESCE(MAX(version), 0) + 1, CAST($2 AS TEXT), CAST($3 AS BYTEA), 0, 0, 0 FROM key_backups WHERE user_id = $1
		RETURNING version`, []any{dbText(string(user)), dbText(algorithm), authData}, &version)
	return version, err
}

// SetBackupAuth replaces the auth data of a version that is not deleted. It reports false when there is none.
func (tx *Tx) SetBackupAuth(user matrix.UserID, version int64, authData []byte) (bool, error) {
	n, err := tx.exec(`UPDATE key_backups SET auth_data = $3 WHERE user_id = $1 AND version = $2 AND deleted = 0`, dbText(string(user)), version, authData)
	return n == 1, err
}

// DeleteBackup removes a version with its sessions; only the number stays. It reports false when there never was such a version.
func (tx *Tx) DeleteBackup(user matrix.UserID, version int64) (bool, error) {
	n, err := tx.exec(`UPDATE key_backups SET deleted = 1, key_count = 0, auth_data = $3 WHERE user_id = $1 AND version = $2`, dbText(string(user)), version, []byte("{}"))
	if err != nil || n == 0 {
		return false, err
	}
	_, err = tx.exec(`DELETE FROM key_backup_sessions WHERE user_id = $1 AND version = $2`, dbText(string(user)), version)
	return true, err
}

// LockBackup makes other writers of a version wait until this transaction ends, and returns the version, or ErrNotFound where
// it is deleted or never was.
func (tx *Tx) LockBackup(user matrix.UserID, version int64) (KeyBackup, error) {
	return tx.backup(`UPDATE key_backups SET etag = etag WHERE user_id = $1 AND version = $2 AND deleted = 0
		RETURNING version, algorithm, auth_data, etag, key_count, deleted`, dbText(string(user)), version)
}

// changeBackup counts a change of the sessions of a version.
func (tx *Tx) changeBackup(user matrix.UserID, version, added int64) error {
	_, err := tx.exec(`UPDATE key_backups SET etag = etag + 1, key_count = key_count + $3 WHERE user_id = $1 AND version = $2`,
		dbText(string(user)), version, added)
	return err
}

// PutBackupSessions stores sessions in a version that the caller has locked. Where there is a key of the session already, the
// better one stays: first a verified one, then one that decrypts earlier messages, then one that was forwarded less often.
//
// spec: client-server-api#server-side-key-backups
func (tx *Tx) PutBackupSessions(user matrix.UserID, version int64, list []BackupSession) error {
	rows := make([][]any, len(list))
	for i, s := range list {
		rows[i] = []any{dbText(string(user)), version, dbText(s.RoomID), dbText(s.SessionID), boolInt(s.IsVerified), s.FirstMessageIndex, s.ForwardedCount, int64(1), s.Data}
	}
	var added, changed int64
	err := tx.bulk(`INSERT INTO key_backup_sessions (user_id, version, room_id, session_id, is_verified, first_message_index, forwarded_count, revision, session_data)`,
		[]string{"TEXT", "BIGINT", "TEXT", "TEXT", "BIGINT", "BIGINT", "BIGINT", "BIGINT", "BYTEA"}, `ON CONFLICT (user_id, version, room_id, session_id)
		DO UPDATE SET is_verified = excluded.is_verified, first_message_index = excluded.first_message_index,
		forwarded_count = excluded.forwarded_count, session_data = excluded.session_data, revision = key_backup_sessions.revision + 1
		WHERE excluded.is_verified > key_backup_sessions.is_verified OR (excluded.is_verified = key_backup_sessions.is_verified AND
		(excluded.first_message_index < key_backup_sessions.first_message_index OR
		(excluded.first_message_index = key_backup_sessions.first_message_index AND excluded.forwarded_count < key_backup_sessions.forwarded_count)))
		RETURNING revision`, rows, func(r *sql.Rows) error {
			var revision int64
			if err := r.Scan(&revision); err != nil {
				return err
			}
			changed++
			if revision == 1 {
				added++
			}
			return nil
		})
	if err != nil || changed == 0 {
		return err
	}
	return tx.changeBackup(user, version, added)
}

// where returns the condition that a scope means, and its parameters.
func (s BackupScope) where(user matrix.UserID, version int64) (string, []any) {
	args := []any{dbText(string(user)), version}
	switch {
	case s.RoomID == "":
		return ` WHERE user_id = $1 AND version = $2`, args
	case s.SessionID == "":
		return ` WHERE user_id = $1 AND version = $2 AND room_id = $3`, append(args, dbText(s.RoomID))
	}
	return ` WHERE user_id = $1 AND version = $2 AND room_id = $3 AND session_id = $4`, append(args, dbText(s.RoomID), dbText(s.SessionID))
}

// LoadBackupSessions returns the sessions of a part of a version, ordered by room and session.
func (tx *Tx) LoadBackupSessions(user matrix.UserID, version int64, scope BackupScope) ([]BackupSession, error) {
	var out []BackupSession
	where, args := scope.where(user, version)
	err := tx.query(func(r *sql.Rows) error {
		var room, session string
		var s BackupSession
		if err := r.Scan(&room, &session, &s.IsVerified, &s.FirstMessageIndex, &s.ForwardedCount, &s.Data); err != nil {
			return err
		}
		s.RoomID, s.SessionID = goText(room), goText(session)
		out = append(out, s)
		return nil
	}, `SELECT room_id, session_id, is_verified, first_message_index, forwarded_count, session_data FROM key_backup_sessions`+where+
		` ORDER BY room_id, session_id`, args...)
	return out, err
}

// DeleteBackupSessions removes the sessions of a part of a version that the caller has locked.
func (tx *Tx) DeleteBackupSessions(user matrix.UserID, version int64, scope BackupScope) error {
	where, args := scope.where(user, version)
	n, err := tx.exec(`DELETE FROM key_backup_sessions`+where, args...)
	if err != nil || n == 0 {
		return err
	}
	return tx.changeBackup(user, version, -n)
}
