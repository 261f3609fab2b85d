package storage

import (
	"database/sql"
	"errors"
	"slices"

	"hansa/matrix"
)

// RemoteList is what is known of the device list of a user of another server.
type RemoteList struct {
	UserID matrix.UserID
	// StreamID is the newest update that the list holds, 0 where it is not known.
	StreamID int64
	// Fresh lists hold all that their server told; others have to be fetched.
	Fresh bool
	// Revision counts the changes, so that what was fetched meanwhile is not taken for newer than it is.
	Revision int64
	// RetryTS is when a list that is not fresh is fetched again, Failures how often that failed.
	RetryTS, Failures int64
}

const selectRemoteListsSQL = `SELECT user_id, stream_id, fresh, revision, retry_ts, failures FROM remote_device_lists `

func (tx *Tx) remoteLists(q string, args ...any) ([]RemoteList, error) {
	var out []RemoteList
	err := tx.query(func(r *sql.Rows) error {
		var user string
		var fresh int64
		var l RemoteList
		if err := r.Scan(&user, &l.StreamID, &fresh, &l.Revision, &l.RetryTS, &l.Failures); err != nil {
			return err
		}
		l.UserID, l.Fresh = matrix.UserID(goText(user)), fresh != 0
		out = append(out, l)
		return nil
	}, q, args...)
	return out, err
}

// LoadRemoteLists returns what is known of the device lists of several users of other servers. Users of whom nothing is known have no
// entry.
func (tx *Tx) LoadRemoteLists(users []matrix.UserID) (map[matrix.UserID]RemoteList, error) {
	out := make(map[matrix.UserID]RemoteList, len(users))
	if len(users) == 0 {
		return out, nil
	}
	list, err := tx.remoteLists(selectRemoteListsSQL+`WHERE user_id SET($1)`, setOf(tx, users))
	for _, l := range list {
		out[l.UserID] = l
	}
	return out, err
}

// LockRemoteList returns what is known of one device list, and keeps others from changing it until the transaction ends. ok is false
// when the list is not kept.
func (tx *Tx) LockRemoteList(user matrix.UserID) (l RemoteList, ok bool, err error) {
	n, err := tx.exec(`UPDATE remote_device_lists SET revision = revision + 1 WHERE user_id = $1`, dbText(string(user)))
	if err != nil || n == 0 {
		return l, false, err
	}
	found, err := tx.LoadRemoteLists([]matrix.UserID{user})
	l, ok = found[user]
	return l, ok, err
}

// KeepRemoteLists begins to keep the lists of users, each not fresh yet. Those that are kept already stay as they are.
func (tx *Tx) KeepRemoteLists(users []matrix.UserID, retryTS int64) error {
	rows := make([][]any, len(users))
	for i, u := range users {
		rows[i] = []any{dbText(string(u)), 0, 0, 0, retryTS, 0}
	}
	if len(rows) == 0 {
		return nil
	}
	return tx.bulk(`INSERT INTO remote_device_lists (user_id, stream_id, fresh, revision, retry_ts, failures)`,
		[]string{"TEXT", "BIGINT", "BIGINT", "BIGINT", "BIGINT", "BIGINT"}, `ON CONFLICT (user_id) DO NOTHING`, rows, nil)
}

// SetRemoteList stores what is known of a list that is kept.
func (tx *Tx) SetRemoteList(l RemoteList) error {
	fresh := 0
	if l.Fresh {
		fresh = 1
	}
	_, err := tx.exec(`UPDATE remote_device_lists SET stream_id = $2, fresh = $3, retry_ts = $4, failures = $5 WHERE user_id = $1`,
		dbText(string(l.UserID)), l.StreamID, fresh, l.RetryTS, l.Failures)
	return err
}

// ClaimStaleLists returns lists that are to be fetched by now, and makes sure that nobody else does so before the given time.
func (tx *Tx) ClaimStaleLists(now, until int64, limit int) ([]RemoteList, error) {
	list, err := tx.remoteLists(selectRemoteListsSQL+`WHERE fresh = 0 AND retry_ts <= $1 ORDER BY retry_ts LIMIT $2`, now, limit)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	users := make([]matrix.UserID, len(list))
	for i, l := range list {
		users[i] = l.UserID
	}
	_, err = tx.exec(`UPDATE remote_device_lists SET retry_ts = $2 WHERE user_id SET($1)`, setOf(tx, users), until)
	return list, err
}

// NextStaleList returns when the next list is to be fetched. ok is false when all are fresh.
func (tx *Tx) NextStaleList() (ts int64, ok bool, err error) {
	err = tx.row(`SELECT retry_ts FROM remote_device_lists WHERE fresh = 0 ORDER BY retry_ts LIMIT 1`, nil, &ts)
	if errors.Is(err, ErrNotFound) {
		return 0, false, nil
	}
	return ts, err == nil, err
}

// DropRemoteLists forgets the devices and keys of users of other servers.
func (tx *Tx) DropRemoteLists(users []matrix.UserID) error {
	if len(users) == 0 {
		return nil
	}
	set := setOf(tx, users)
	for _, q := range []string{`DELETE FROM remote_devices WHERE user_id SET($1)`, `DELETE FROM remote_device_lists WHERE user_id SET($1)`,
		`DELETE FROM cross_signing_keys WHERE user_id SET($1)`, `DELETE FROM key_signatures WHERE target_id SET($1) AND signer_id = target_id`} {
		if _, err := tx.exec(q, set); err != nil {
			return err
		}
	}
	return nil
}

// LoadRemoteDevices returns the devices of several users of other servers, ordered by user and device. Their keys are as their
// servers sent them, with signatures and without unsigned.
func (tx *Tx) LoadRemoteDevices(users []matrix.UserID) ([]DeviceKeys, error) {
	return tx.deviceKeys(users, `SELECT user_id, device_id, display_name, keys FROM remote_devices WHERE user_id SET($1) ORDER BY 1, 2`)
}

// CountRemoteDevices returns how many devices are kept of a user.
func (tx *Tx) CountRemoteDevices(user matrix.UserID) (n int64, err error) {
	err = tx.row(`SELECT COUNT(*) FROM remote_devices WHERE user_id = $1`, []any{dbText(string(user))}, &n)
	return n, err
}

// PutRemoteDevices stores devices of users of other servers in place of those with the same ID.
func (tx *Tx) PutRemoteDevices(list []DeviceKeys) error {
	if len(list) == 0 {
		return nil
	}
	rows := make([][]any, len(list))
	for i, d := range list {
		rows[i] = []any{dbText(string(d.UserID)), dbText(string(d.DeviceID)), dbText(d.DisplayName), d.Keys}
	}
	return tx.bulk(`INSERT INTO remote_devices (user_id, device_id, display_name, keys)`, []string{"TEXT", "TEXT", "TEXT", "BYTEA"},
		`ON CONFLICT (user_id, device_id) DO UPDATE SET display_name = excluded.display_name, keys = excluded.keys`, rows, nil)
}

// DeleteRemoteDevices forgets devices of a user of another server.
func (tx *Tx) DeleteRemoteDevices(user matrix.UserID, devices []matrix.DeviceID) error {
	_, err := tx.exec(`DELETE FROM remote_devices WHERE user_id = $1 AND device_id SET($2)`, dbText(string(user)), setOf(tx, devices))
	return err
}

// ReplaceOwnSignatures stores, in place of all others, the signatures that a user made on the own cross-signing keys.
func (tx *Tx) ReplaceOwnSignatures(user matrix.UserID, list []KeySignature) error {
	if _, err := tx.exec(`DELETE FROM key_signatures WHERE target_id = $1 AND signer_id = $1`, dbText(string(user))); err != nil || len(list) == 0 {
		return err
	}
	_, err := tx.PutKeySignatures(list, 0)
	return err
}

// PutReceivedToDevice notes that a message from another server has come. It reports false when it came before.
func (tx *Tx) PutReceivedToDevice(sender matrix.UserID, messageID string) (bool, error) {
	n, err := tx.exec(`INSERT INTO received_to_device (sender, message_id, received_ts) VALUES ($1, $2, $3) ON CONFLICT (sender, message_id) DO NOTHING`,
		dbText(string(sender)), dbText(messageID), tx.nowMS())
	return n == 1, err
}

// PruneReceivedToDevice forgets which messages came from other servers before a time in ms.
func (tx *Tx) PruneReceivedToDevice(before int64) (int64, error) {
	return tx.exec(`DELETE FROM received_to_device WHERE received_ts < $1`, before)
}

// LoadSharers returns which of several users of other servers share a room with a user of this deployment.
func (tx *Tx) LoadSharers(users []matrix.UserID) (map[matrix.UserID]bool, error) {
	out := make(map[matrix.UserID]bool, len(users))
	if len(users) == 0 {
		return out, nil
	}
	list, err := tx.userIDs(`SELECT DISTINCT a.user_id FROM memberships a WHERE a.user_id SET($1) AND a.membership = 'join' AND EXISTS (
		SELECT 1 FROM memberships b JOIN users u ON u.user_id = b.user_id WHERE b.room_num = a.room_num AND b.membership = 'join')`, setOf(tx, users))
	for _, u := range list {
		out[u] = true
	}
	return out, err
}

// LoadSharingTenants returns the tenants whose users share a room with a user of another server.
func (tx *Tx) LoadSharingTenants(user matrix.UserID) ([]matrix.ServerName, error) {
	return tx.serverNames(`SELECT DISTINCT u.tenant FROM memberships a JOIN memberships b ON b.room_num = a.room_num AND b.membership = 'join'
		JOIN users u ON u.user_id = b.user_id WHERE a.user_id = $1 AND a.membership = 'join' ORDER BY 1`, dbText(string(user)))
}

// LoadStrangers returns the users of other servers who are joined to a room.
func (tx *Tx) LoadStrangers(room matrix.RoomID) ([]matrix.UserID, error) {
	return tx.userIDs(`SELECT m.user_id FROM rooms r JOIN memberships m ON m.room_num = r.room_num LEFT JOIN users u ON u.user_id = m.user_id
		WHERE r.room_id = $1 AND m.membership = 'join' AND u.user_id IS NULL`, string(room))
}

// HasDestinations tells whether what happens in a room is sent to any other server.
func (tx *Tx) HasDestinations(room matrix.RoomID) (bool, error) {
	var n int64
	err := tx.row(`SELECT COUNT(*) FROM (SELECT o.destination FROM rooms r JOIN outbox_rooms o ON o.room_num = r.room_num WHERE r.room_id = $1 LIMIT 1) d`,
		[]any{string(room)}, &n)
	return n > 0, err
}

// LoadLocals returns users of this deployment who are joined to a room.
func (tx *Tx) LoadLocals(room matrix.RoomID, limit int) ([]matrix.UserID, error) {
	return tx.userIDs(`SELECT m.user_id FROM rooms r JOIN memberships m ON m.room_num = r.room_num JOIN users u ON u.user_id = m.user_id
		WHERE r.room_id = $1 AND m.membership = 'join' LIMIT $2`, string(room), limit)
}

// KeepsRemoteLists tells whether any device list of another server is kept.
func (tx *Tx) KeepsRemoteLists() (bool, error) {
	var n int64
	err := tx.row(`SELECT COUNT(*) FROM (SELECT user_id FROM remote_device_lists LIMIT 1) l`, nil, &n)
	return n > 0, err
}

// LoadKeptServers returns the servers of the users whose device lists are kept.
func (tx *Tx) LoadKeptServers() ([]matrix.ServerName, error) {
	users, err := tx.userIDs(`SELECT user_id FROM remote_device_lists`)
	seen := map[matrix.ServerName]bool{}
	var out []matrix.ServerName
	for _, u := range users {
		if !seen[u.Server()] {
			seen[u.Server()] = true
			out = append(out, u.Server())
		}
	}
	return out, err
}

// LoadKeptUsers returns the users of a server whose device lists are kept.
func (tx *Tx) LoadKeptUsers(server matrix.ServerName) ([]matrix.UserID, error) {
	list, err := tx.userIDs(`SELECT user_id FROM remote_device_lists WHERE user_id LIKE $1`, "%:"+string(server))
	return slices.DeleteFunc(list, func(u matrix.UserID) bool { return u.Server() != server }), err
}

// LoadKeptMembers returns the users whose device lists are kept and who are joined to a room.
func (tx *Tx) LoadKeptMembers(room matrix.RoomID) ([]matrix.UserID, error) {
	return tx.userIDs(`SELECT m.user_id FROM memberships m JOIN rooms r ON r.room_num = m.room_num JOIN remote_device_lists l ON l.user_id = m.user_id
		WHERE r.room_id = $1 AND m.membership = 'join'`, string(room))
}

// AnnouncedList is what other servers were told last of the devices and keys of a user.
type AnnouncedList struct {
	// StreamID is the number of the newest update, 0 where there was none.
	StreamID int64
	// Keys is a hash of the cross-signing keys, Devices has one of each device.
	Keys    []byte
	Devices map[matrix.DeviceID][]byte
}

// LoadAnnouncedList returns what other servers were told last of a user.
func (tx *Tx) LoadAnnouncedList(user matrix.UserID) (AnnouncedList, error) {
	out := AnnouncedList{Devices: map[matrix.DeviceID][]byte{}}
	err := tx.row(`SELECT stream_id, keys_hash FROM announced_lists WHERE user_id = $1`, []any{dbText(string(user))}, &out.StreamID, &out.Keys)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return out, err
	}
	err = tx.query(func(r *sql.Rows) error {
		var device string
		var hash []byte
		if err := r.Scan(&device, &hash); err != nil {
			return err
		}
		out.Devices[matrix.DeviceID(goText(device))] = hash
		return nil
	}, `SELECT device_id, hash FROM announced_devices WHERE user_id = $1`, dbText(string(user)))
	return out, err
}

// PutAnnouncedList notes what other servers are told of a user: all of the hashes of devices in put, and that those in gone are no more.
func (tx *Tx) PutAnnouncedList(user matrix.UserID, streamID int64, keys []byte, put map[matrix.DeviceID][]byte, gone []matrix.DeviceID) error {
	u := dbText(string(user))
	if _, err := tx.exec(`INSERT INTO announced_lists (user_id, stream_id, keys_hash) VALUES ($1, $2, $3)
		ON CONFLICT (user_id) DO UPDATE SET stream_id = excluded.stream_id, keys_hash = excluded.keys_hash`, u, streamID, keys); err != nil {
		return err
	}
	if len(gone) > 0 {
		if _, err := tx.exec(`DELETE FROM announced_devices WHERE user_id = $1 AND device_id SET($2)`, u, setOf(tx, gone)); err != nil {
			return err
		}
	}
	if len(put) == 0 {
		return nil
	}
	rows := make([][]any, 0, len(put))
	for d, hash := range put {
		rows = append(rows, []any{u, dbText(string(d)), hash})
	}
	return tx.bulk(`INSERT INTO announced_devices (user_id, device_id, hash)`, []string{"TEXT", "TEXT", "BYTEA"},
		`ON CONFLICT (user_id, device_id) DO UPDATE SET hash = excluded.hash`, rows, nil)
}

func (tx *Tx) serverNames(q string, args ...any) ([]matrix.ServerName, error) {
	var out []matrix.ServerName
	err := tx.query(func(r *sql.Rows) error {
		var name string
		if err := r.Scan(&name); err != nil {
			return err
		}
		out = append(out, matrix.ServerName(name))
		return nil
	}, q, args...)
	return out, err
}
