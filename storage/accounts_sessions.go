package storage

import (
	"database/sql"

	"hansa/matrix"
)

// Device is a device of a local user. Times are in ms since 1970, 0 for never.
type Device struct {
	UserID        matrix.UserID
	DeviceID      matrix.DeviceID
	DisplayName   string
	LastSeenIP    string
	LastSeenAgent string
	LastSeenTS    int64
	CreatedTS     int64
}

// Tokens are the hashes of what a session of a device is opened with. Refresh is nil for a client that cannot refresh.
type Tokens struct {
	UserID   matrix.UserID
	DeviceID matrix.DeviceID
	Access   []byte
	Refresh  []byte
	// Parent is the refresh token that these were made with, until the first use of one of these, which spends it.
	Parent []byte
	// ExpiresTS is when the access token expires, 0 for never.
	ExpiresTS int64
}

// SessionRow is what an access token stands for.
type SessionRow struct {
	User       *User
	DeviceID   matrix.DeviceID
	Parent     []byte
	ExpiresTS  int64
	LastSeenTS int64
}

// LoadSession returns what the access token with a hash stands for, or ErrNotFound.
func (tx *Tx) LoadSession(hash []byte) (*SessionRow, error) {
	var s userScan
	var device string
	row := &SessionRow{}
	err := tx.row(`SELECT `+userColumns+`, t.device_id, t.parent_hash, t.expires_ts, d.last_seen_ts FROM access_tokens t
		JOIN users u ON u.user_id = t.user_id JOIN devices d ON d.user_id = t.user_id AND d.device_id = t.device_id
		WHERE t.token_hash = $1`, []any{hash}, append(s.dest(), &device, &row.Parent, &row.ExpiresTS, &row.LastSeenTS)...)
	if err != nil {
		return nil, err
	}
	row.DeviceID = matrix.DeviceID(goText(device))
	row.User, err = s.user()
	return row, err
}

// PutDevice makes a device. It reports false when the user has one of that ID, which is left as it is.
func (tx *Tx) PutDevice(d Device) (bool, error) {
	n, err := tx.exec(`INSERT INTO devices (user_id, device_id, display_name, last_seen_ip, last_seen_agent, last_seen_ts, created_ts)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (user_id, device_id) DO NOTHING`, dbText(string(d.UserID)), dbText(string(d.DeviceID)),
		dbText(d.DisplayName), dbText(d.LastSeenIP), dbText(d.LastSeenAgent), d.LastSeenTS, d.CreatedTS)
	return n == 1, err
}

const selectDeviceSQL = `SELECT user_id, device_id, display_name, last_seen_ip, last_seen_agent, last_seen_ts, created_ts FROM devices `

func (tx *Tx) devices(q string, args ...any) ([]Device, error) {
	var out []Device
	err := tx.query(func(r *sql.Rows) error {
		var d Device
		var user, device, name, ip, agent string
		if err := r.Scan(&user, &device, &name, &ip, &agent, &d.LastSeenTS, &d.CreatedTS); err != nil {
			return err
		}
		d.UserID, d.DeviceID, d.DisplayName = matrix.UserID(goText(user)), matrix.DeviceID(goText(device)), goText(name)
		d.LastSeenIP, d.LastSeenAgent = goText(ip), goText(agent)
		out = append(out, d)
		return nil
	}, q, args...)
	return out, err
}

// LoadDevices returns the devices of a user, ordered by ID.
func (tx *Tx) LoadDevices(user matrix.UserID) ([]Device, error) {
	return tx.devices(selectDeviceSQL+`WHERE user_id = $1 ORDER BY device_id`, dbText(string(user)))
}

// LoadDevicesOf returns the devices of several users, ordered by user and ID.
func (tx *Tx) LoadDevicesOf(users []matrix.UserID) ([]Device, error) {
	if len(users) == 0 {
		return nil, nil
	}
	return tx.devices(selectDeviceSQL+`WHERE user_id SET($1) ORDER BY user_id, device_id`, setOf(tx, users))
}

// LoadDevice returns one device, or ErrNotFound.
func (tx *Tx) LoadDevice(user matrix.UserID, device matrix.DeviceID) (Device, error) {
	list, err := tx.devices(selectDeviceSQL+`WHERE user_id = $1 AND device_id = $2`, dbText(string(user)), dbText(string(device)))
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Device{}, err
	}
	return list[0], nil
}

// KnowsAddress tells whether a device of the user was last seen at an address.
func (tx *Tx) KnowsAddress(user matrix.UserID, ip string) (bool, error) {
	var n int64
	err := tx.row(`SELECT COUNT(*) FROM devices WHERE user_id = $1 AND last_seen_ip = $2`, []any{dbText(string(user)), ip}, &n)
	return n > 0, err
}

// RenameDevice sets a device's display name. It reports false when there is no such device.
func (tx *Tx) RenameDevice(user matrix.UserID, device matrix.DeviceID, name string) (bool, error) {
	n, err := tx.exec(`UPDATE devices SET display_name = $3 WHERE user_id = $1 AND device_id = $2`,
		dbText(string(user)), dbText(string(device)), dbText(name))
	return n == 1, err
}

// DeleteDevices removes devices with their tokens and waiting messages, and returns how many of them there were.
func (tx *Tx) DeleteDevices(user matrix.UserID, devices []matrix.DeviceID) (int64, error) {
	if len(devices) == 0 {
		return 0, nil
	}
	list := setOf(tx, devices)
	for _, q := range []string{`DELETE FROM access_tokens WHERE user_id = $1 AND device_id SET($2)`,
		`DELETE FROM refresh_tokens WHERE user_id = $1 AND device_id SET($2)`, `DELETE FROM to_device WHERE user_id = $1 AND device_id SET($2)`} {
		if _, err := tx.exec(q, dbText(string(user)), list); err != nil {
			return 0, err
		}
	}
	return tx.exec(`DELETE FROM devices WHERE user_id = $1 AND device_id SET($2)`, dbText(string(user)), list)
}

// DeleteTokens removes the tokens of a device, or of all of a user's when device is empty, and returns how many sessions ended.
func (tx *Tx) DeleteTokens(user matrix.UserID, device matrix.DeviceID) (int64, error) {
	if _, err := tx.exec(`DELETE FROM refresh_tokens WHERE user_id = $1 AND (device_id = $2 OR CAST($2 AS TEXT) = '')`,
		dbText(string(user)), dbText(string(device))); err != nil {
		return 0, err
	}
	return tx.exec(`DELETE FROM access_tokens WHERE user_id = $1 AND (device_id = $2 OR CAST($2 AS TEXT) = '')`,
		dbText(string(user)), dbText(string(device)))
}

func blobArg(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}

// PutTokens stores the hashes of new tokens.
func (tx *Tx) PutTokens(t Tokens) error {
	now := tx.nowMS()
	if _, err := tx.exec(`INSERT INTO access_tokens (token_hash, user_id, device_id, parent_hash, expires_ts, created_ts)
		VALUES ($1, $2, $3, $4, $5, $6)`, t.Access, dbText(string(t.UserID)), dbText(string(t.DeviceID)), blobArg(t.Parent), t.ExpiresTS, now); err != nil {
		return err
	}
	if len(t.Refresh) == 0 {
		return nil
	}
	_, err := tx.exec(`INSERT INTO refresh_tokens (token_hash, user_id, device_id, parent_hash, spent, used_ts, created_ts)
		VALUES ($1, $2, $3, $4, 0, 0, $5)`, t.Refresh, dbText(string(t.UserID)), dbText(string(t.DeviceID)), blobArg(t.Parent), now)
	return err
}

// RefreshRow is a refresh token. Spent ones are kept for a while, to know a thief by their use.
type RefreshRow struct {
	UserID   matrix.UserID
	DeviceID matrix.DeviceID
	Parent   []byte
	Spent    bool
}

// LoadRefresh returns the refresh token with a hash and locks it until the transaction ends, or ErrNotFound.
func (tx *Tx) LoadRefresh(hash []byte) (*RefreshRow, error) {
	var user, device string
	r := &RefreshRow{}
	err := tx.row(`UPDATE refresh_tokens SET used_ts = $2 WHERE token_hash = $1 RETURNING user_id, device_id, parent_hash, spent`,
		[]any{hash, tx.nowMS()}, &user, &device, &r.Parent, &r.Spent)
	r.UserID, r.DeviceID = matrix.UserID(goText(user)), matrix.DeviceID(goText(device))
	return r, err
}

// FindRefresh returns the refresh token with a hash, or ErrNotFound.
func (tx *Tx) FindRefresh(hash []byte) (*RefreshRow, error) {
	var user, device string
	r := &RefreshRow{}
	err := tx.row(`SELECT user_id, device_id, parent_hash, spent FROM refresh_tokens WHERE token_hash = $1`,
		[]any{hash}, &user, &device, &r.Parent, &r.Spent)
	r.UserID, r.DeviceID = matrix.UserID(goText(user)), matrix.DeviceID(goText(device))
	return r, err
}

// SpendOthers ends every token of a device but those given: what was issued before them must not be used again. Access tokens
// are forgotten, refresh tokens are kept as spent; those that were spent before a time are forgotten as well.
func (tx *Tx) SpendOthers(user matrix.UserID, device matrix.DeviceID, access, refresh [][]byte, before int64) (int64, error) {
	u, d := dbText(string(user)), dbText(string(device))
	if _, err := tx.exec(`DELETE FROM refresh_tokens WHERE user_id = $1 AND device_id = $2 AND spent = 1 AND used_ts < $3`, u, d, before); err != nil {
		return 0, err
	}
	if _, err := tx.exec(`UPDATE refresh_tokens SET spent = 1, used_ts = $4 WHERE user_id = $1 AND device_id = $2 AND spent = 0 AND NOT (token_hash BLOBSET($3))`,
		u, d, tx.set(refresh), tx.nowMS()); err != nil {
		return 0, err
	}
	if _, err := tx.exec(`UPDATE refresh_tokens SET parent_hash = NULL WHERE user_id = $1 AND device_id = $2 AND token_hash BLOBSET($3)`,
		u, d, tx.set(refresh)); err != nil {
		return 0, err
	}
	if _, err := tx.exec(`UPDATE access_tokens SET parent_hash = NULL WHERE user_id = $1 AND device_id = $2 AND token_hash BLOBSET($3)`,
		u, d, tx.set(access)); err != nil {
		return 0, err
	}
	return tx.exec(`DELETE FROM access_tokens WHERE user_id = $1 AND device_id = $2 AND NOT (token_hash BLOBSET($3))`, u, d, tx.set(access))
}

// LoadChildren returns the hashes of the tokens of a device that were made with a refresh token and have not been used.
func (tx *Tx) LoadChildren(user matrix.UserID, device matrix.DeviceID, parent []byte) (access, refresh [][]byte, err error) {
	err = tx.query(func(r *sql.Rows) error {
		var kind int64
		var hash []byte
		if err := r.Scan(&kind, &hash); err != nil {
			return err
		}
		if kind == 1 {
			access = append(access, hash)
		} else {
			refresh = append(refresh, hash)
		}
		return nil
	}, `SELECT 1, token_hash FROM access_tokens WHERE user_id = $1 AND device_id = $2 AND parent_hash = $3
		UNION ALL SELECT 2, token_hash FROM refresh_tokens WHERE user_id = $1 AND device_id = $2 AND parent_hash = $3 AND spent = 0`,
		dbText(string(user)), dbText(string(device)), parent)
	return access, refresh, err
}

// Supersede ends the tokens that were made with a refresh token and have not been used: their answer was lost.
func (tx *Tx) Supersede(user matrix.UserID, device matrix.DeviceID, parent []byte) error {
	if _, err := tx.exec(`DELETE FROM access_tokens WHERE user_id = $1 AND device_id = $2 AND parent_hash = $3`,
		dbText(string(user)), dbText(string(device)), parent); err != nil {
		return err
	}
	_, err := tx.exec(`UPDATE refresh_tokens SET spent = 1, used_ts = $4 WHERE user_id = $1 AND device_id = $2 AND parent_hash = $3 AND spent = 0`,
		dbText(string(user)), dbText(string(device)), parent, tx.nowMS())
	return err
}

// Seen says that a device was used.
type Seen struct {
	UserID    matrix.UserID
	DeviceID  matrix.DeviceID
	IP, Agent string
	TS        int64
}

// RestartDevice notes the login that a device begins anew with: whatever the clock says, it comes after everything before it.
func (tx *Tx) RestartDevice(s Seen) error {
	_, err := tx.exec(`UPDATE devices SET last_seen_ip = $3, last_seen_agent = $4, last_seen_ts = $5 WHERE user_id = $1 AND device_id = $2`,
		dbText(string(s.UserID)), dbText(string(s.DeviceID)), dbText(s.IP), dbText(s.Agent), s.TS)
	return err
}

// PutSeen notes when and from where devices were last used, with one statement for up to 256 of them. What is known of a later use stays.
func (tx *Tx) PutSeen(list []Seen) error {
	rows := make([][]any, len(list))
	for i, s := range list {
		rows[i] = []any{dbText(string(s.UserID)), dbText(string(s.DeviceID)), dbText(s.IP), dbText(s.Agent), s.TS}
	}
	return tx.bulk(`WITH seen AS (`, []string{"TEXT", "TEXT", "TEXT", "TEXT", "BIGINT"}, `)
		UPDATE devices SET last_seen_ip = seen.column3, last_seen_agent = seen.column4, last_seen_ts = seen.column5 FROM seen
		WHERE devices.user_id = seen.column1 AND devices.device_id = seen.column2 AND devices.last_seen_ts < seen.column5`, rows, nil)
}
