package e2ee

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/storage"
)

// BackupVersion describes a version of a key backup.
type BackupVersion struct {
	Algorithm string         `json:"algorithm"`
	AuthData  jsontext.Value `json:"auth_data"`
	Count     int64          `json:"count"`
	ETag      string         `json:"etag"`
	Version   string         `json:"version"`
}

// BackupState is the answer to a change of a backup's keys.
type BackupState struct {
	Count int64  `json:"count"`
	ETag  string `json:"etag"`
}

// BackupKey is the encrypted key of one session; absent members are nil.
type BackupKey struct {
	FirstMessageIndex *int64         `json:"first_message_index"`
	ForwardedCount    *int64         `json:"forwarded_count"`
	IsVerified        *bool          `json:"is_verified"`
	SessionData       jsontext.Value `json:"session_data"`
}

// RoomBackup are keys of sessions of one room.
type RoomBackup struct {
	Sessions map[string]BackupKey `json:"sessions"`
}

// Rooms are keys of sessions by room.
type Rooms map[string]RoomBackup

func unknownBackup() error { return matrix.NotFound("There is no such version of the key backup.") }

// parseVersion reads a version as clients name it.
func parseVersion(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 || strconv.FormatInt(n, 10) != s {
		return 0, unknownBackup()
	}
	return n, nil
}

// backupErr turns a missing row, or a deleted version, into the answer.
func backupErr(b storage.KeyBackup, err error) error {
	if errors.Is(err, storage.ErrNotFound) || err == nil && b.Deleted {
		return unknownBackup()
	}
	return err
}

func parseAuthData(algorithm string, v jsontext.Value) ([]byte, error) {
	switch {
	case algorithm == "" || len(algorithm) > maxName:
		return nil, matrix.BadJSON("algorithm must be a string of 1 to %d bytes.", maxName)
	case len(v) > maxAuthData:
		return nil, tooLarge("auth_data may have at most %d bytes.", maxAuthData)
	}
	v = v.Clone()
	if v.Kind() != '{' || v.Compact() != nil {
		return nil, matrix.BadJSON("auth_data must be an object.")
	}
	return v, nil
}

// CreateBackup makes a new version of the user's key backup, which from then on is the one that takes keys.
//
// spec: client-server-api#post_matrixclientv3room_keysversion
func (s *Service) CreateBackup(ctx context.Context, user matrix.UserID, algorithm string, authData jsontext.Value) (string, error) {
	data, err := parseAuthData(algorithm, authData)
	if err != nil {
		return "", err
	}
	var version int64
	err = s.DB.Update(ctx, func(tx *storage.Tx) error {
		if ok, err := tx.LockUser(user); err != nil || !ok {
			return orGone(err)
		}
		version, err = tx.InsertBackup(user, algorithm, data)
		return err
	})
	return strconv.FormatInt(version, 10), err
}

// FindBackup describes a version, or the current one when version is empty.
//
// spec: client-server-api#get_matrixclientv3room_keysversion
func (s *Service) FindBackup(ctx context.Context, user matrix.UserID, version string) (*BackupVersion, error) {
	var number int64
	if version != "" {
		var err error
		if number, err = parseVersion(version); err != nil {
			return nil, err
		}
	}
	var b storage.KeyBackup
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		if version == "" {
			b, err = tx.LoadCurrentBackup(user)
		} else {
			b, err = tx.LoadBackup(user, number)
		}
		return backupErr(b, err)
	})
	if err != nil {
		return nil, err
	}
	return &BackupVersion{b.Algorithm, b.AuthData, b.Count, strconv.FormatInt(b.ETag, 10), strconv.FormatInt(b.Version, 10)}, nil
}

// UpdateBackup replaces the auth data of a version. named is the version inside the body, empty when there is none.
//
// spec: client-server-api#put_matrixclientv3room_keysversionversion
func (s *Service) UpdateBackup(ctx context.Context, user matrix.UserID, version, named, algorithm string, authData jsontext.Value) error {
	number, err := parseVersion(version)
	if err != nil {
		return err
	}
	if named != "" && named != version {
		return matrix.InvalidParam("The version in the body is not the one in the path.")
	}
	data, err := parseAuthData(algorithm, authData)
	if err != nil {
		return err
	}
	return s.DB.Update(ctx, func(tx *storage.Tx) error {
		b, err := tx.LockBackup(user, number)
		if err != nil {
			return backupErr(b, err)
		}
		if b.Algorithm != algorithm {
			return matrix.InvalidParam("The algorithm of a backup cannot be changed.")
		}
		_, err = tx.SetBackupAuth(user, number, data)
		return err
	})
}

// DeleteBackup removes a version with its keys. Removing one again succeeds.
//
// spec: client-server-api#delete_matrixclientv3room_keysversionversion
func (s *Service) DeleteBackup(ctx context.Context, user matrix.UserID, version string) error {
	number, err := parseVersion(version)
	if err != nil {
		return err
	}
	return s.DB.Update(ctx, func(tx *storage.Tx) error {
		ok, err := tx.DeleteBackup(user, number)
		if err == nil && !ok {
			err = unknownBackup()
		}
		return err
	})
}

// parseSessions checks keys of sessions.
func parseSessions(rooms Rooms) ([]storage.BackupSession, error) {
	var out []storage.BackupSession
	for _, room := range sortedKeys(rooms) {
		if room == "" || len(room) > maxName {
			return nil, matrix.InvalidParam("A room ID has 1 to %d bytes.", maxName)
		}
		if rooms[room].Sessions == nil {
			return nil, matrix.BadJSON("The keys of %.100q have no sessions.", room)
		}
		for _, id := range sortedKeys(rooms[room].Sessions) {
			k := rooms[room].Sessions[id]
			switch {
			case len(out) >= maxSessions:
				return nil, tooLarge("A request may hold at most %d sessions.", maxSessions)
			case id == "" || len(id) > maxName:
				return nil, matrix.InvalidParam("A session ID has 1 to %d bytes.", maxName)
			case k.FirstMessageIndex == nil || k.ForwardedCount == nil || k.IsVerified == nil:
				return nil, matrix.BadJSON("A key needs first_message_index, forwarded_count and is_verified.")
			case *k.FirstMessageIndex < 0 || *k.ForwardedCount < 0 || max(*k.FirstMessageIndex, *k.ForwardedCount) > maxMessageNumber:
				return nil, matrix.BadJSON("first_message_index and forwarded_count must not be negative.")
			case len(k.SessionData) > maxSessionData:
				return nil, tooLarge("session_data may have at most %d bytes.", maxSessionData)
			}
			data := k.SessionData.Clone()
			if data.Kind() != '{' || data.Compact() != nil {
				return nil, matrix.BadJSON("session_data must be an object.")
			}
			out = append(out, storage.BackupSession{RoomID: room, SessionID: id, IsVerified: *k.IsVerified,
				FirstMessageIndex: *k.FirstMessageIndex, ForwardedCount: *k.ForwardedCount, Data: data})
		}
	}
	return out, nil
}

// PutSessions stores keys in the current version of the backup. Of two keys of one session the better one stays.
//
// spec: client-server-api#put_matrixclientv3room_keyskeys
// spec: client-server-api#server-side-key-backups
func (s *Service) PutSessions(ctx context.Context, user matrix.UserID, version string, rooms Rooms) (BackupState, error) {
	number, err := parseVersion(version)
	if err != nil {
		return BackupState{}, err
	}
	list, err := parseSessions(rooms)
	if err != nil {
		return BackupState{}, err
	}
	return s.change(ctx, user, number, func(tx *storage.Tx) error {
		current, err := tx.LoadCurrentBackup(user)
		if err != nil {
			return backupErr(current, err)
		}
		if current.Version != number {
			return matrix.Errorf(http.StatusForbidden, matrix.CodeWrongRoomKeysVersion, "Keys go into the newest version of the backup only.").
				With("current_version", strconv.FormatInt(current.Version, 10))
		}
		if _, err := tx.LockBackup(user, number); err != nil {
			return backupErr(current, err)
		}
		return tx.PutBackupSessions(user, number, list)
	})
}

// DeleteSessions removes keys from a version: all, those of a room, or one.
//
// spec: client-server-api#delete_matrixclientv3room_keyskeys
func (s *Service) DeleteSessions(ctx context.Context, user matrix.UserID, version string, scope storage.BackupScope) (BackupState, error) {
	number, err := parseVersion(version)
	if err != nil {
		return BackupState{}, err
	}
	return s.change(ctx, user, number, func(tx *storage.Tx) error {
		if b, err := tx.LockBackup(user, number); err != nil {
			return backupErr(b, err)
		}
		return tx.DeleteBackupSessions(user, number, scope)
	})
}

// change runs a change of a version and returns what it is like afterwards.
func (s *Service) change(ctx context.Context, user matrix.UserID, version int64, fn func(tx *storage.Tx) error) (BackupState, error) {
	var b storage.KeyBackup
	err := s.DB.Update(ctx, func(tx *storage.Tx) (err error) {
		if err := fn(tx); err != nil {
			return err
		}
		b, err = tx.LoadBackup(user, version)
		return err
	})
	return BackupState{b.Count, strconv.FormatInt(b.ETag, 10)}, err
}

// LoadSessions returns the keys in a part of a version as the JSON of the answer: {"rooms":...} for all, {"sessions":...} for a
// room, and the key itself for one session.
//
// spec: client-server-api#get_matrixclientv3room_keyskeys
func (s *Service) LoadSessions(ctx context.Context, user matrix.UserID, version string, scope storage.BackupScope) ([]byte, error) {
	number, err := parseVersion(version)
	if err != nil {
		return nil, err
	}
	var list []storage.BackupSession
	err = s.DB.View(ctx, func(tx *storage.Tx) error {
		b, err := tx.LoadBackup(user, number)
		if err = backupErr(b, err); err != nil {
			return err
		}
		list, err = tx.LoadBackupSessions(user, number, scope)
		return err
	})
	if err != nil {
		return nil, err
	}
	switch {
	case scope.SessionID != "" && len(list) == 0:
		return nil, matrix.NotFound("There is no key of this session in the backup.")
	case scope.SessionID != "":
		return appendSession(nil, list[0]), nil
	case scope.RoomID != "":
		return appendSessions(nil, list), nil
	}
	out := []byte(`{"rooms":{`)
	for i := 0; i < len(list); {
		end := i
		for end < len(list) && list[end].RoomID == list[i].RoomID {
			end++
		}
		if i > 0 {
			out = append(out, ',')
		}
		out = append(canonicaljson.AppendString(out, list[i].RoomID), ':')
		out = appendSessions(out, list[i:end])
		i = end
	}
	return append(out, '}', '}'), nil
}

// appendSessions writes the keys of one room.
func appendSessions(dst []byte, list []storage.BackupSession) []byte {
	dst = append(dst, `{"sessions":{`...)
	for i, s := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(canonicaljson.AppendString(dst, s.SessionID), ':')
		dst = appendSession(dst, s)
	}
	return append(dst, '}', '}')
}

func appendSession(dst []byte, s storage.BackupSession) []byte {
	dst = append(dst, `{"first_message_index":`...)
	dst = strconv.AppendInt(dst, s.FirstMessageIndex, 10)
	dst = append(dst, `,"forwarded_count":`...)
	dst = strconv.AppendInt(dst, s.ForwardedCount, 10)
	dst = append(dst, `,"is_verified":`...)
	dst = strconv.AppendBool(dst, s.IsVerified)
	dst = append(dst, `,"session_data":`...)
	return append(append(dst, s.Data...), '}')
}
