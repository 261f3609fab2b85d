package storage

import (
	"database/sql"

	"hansa/matrix"
)

// Names of notices about keys.
const (
	// NoticeOneTimeKeys tells that the one-time or fallback keys of a user's devices changed. Ref: the user ID.
	NoticeOneTimeKeys = "one_time_keys"
	// NoticeSignatures tells that a user signed keys of others, which only the signer's own devices see. Ref: the signer.
	NoticeSignatures = "signatures"
)

// DeviceKeys are the identity keys of one device. Keys is the canonical object as it was uploaded, without signatures (those
// are KeySignatures) and unsigned; it is nil for a user without a device that has keys.
type DeviceKeys struct {
	UserID      matrix.UserID
	DeviceID    matrix.DeviceID
	DisplayName string
	Keys        []byte
}

// CrossSigningKey is a cross-signing key of a user. Key is the canonical object without signatures and unsigned.
type CrossSigningKey struct {
	UserID    matrix.UserID
	Usage     string // master, self_signing, user_signing
	PublicKey string // unpadded base64
	Key       []byte
}

// KeySignature is a signature on a key. TargetKey is a device ID or the public part of a cross-signing key, SignerKey a key ID
// such as ed25519:DEVICE.
type KeySignature struct {
	TargetID  matrix.UserID
	TargetKey string
	SignerID  matrix.UserID
	SignerKey string
	Signature string
}

// LockUser makes other transactions that lock the same account wait until this one ends. It reports false when there is no
// such account or it is deactivated.
func (tx *Tx) LockUser(user matrix.UserID) (bool, error) {
	n, err := tx.exec(`UPDATE users SET kind = kind WHERE user_id = $1 AND deactivated = 0`, dbText(string(user)))
	return n == 1, err
}

// LockDevices does the same with devices of a user, and returns how many of them there are.
func (tx *Tx) LockDevices(user matrix.UserID, devices []matrix.DeviceID) (int64, error) {
	return tx.exec(`UPDATE devices SET display_name = display_name WHERE user_id = $1 AND device_id SET($2)`, dbText(string(user)), setOf(tx, devices))
}

// LoadDeviceKeys returns the keys of the devices of several users, ordered by user and device. A user who exists and has no
// such device has one entry without Keys; one who does not exist, or is deactivated, has none.
func (tx *Tx) LoadDeviceKeys(users []matrix.UserID) ([]DeviceKeys, error) {
	return tx.deviceKeys(users, `SELECT u.user_id, COALESCE(k.device_id, ''), COALESCE(d.display_name, ''), k.keys FROM users u
		LEFT JOIN device_keys k ON k.user_id = u.user_id LEFT JOIN devices d ON d.user_id = k.user_id AND d.device_id = k.device_id
		WHERE u.user_id SET($1) AND u.deactivated = 0 ORDER BY 1, 2`)
}

// deviceKeys runs a statement about users that yields a user, a device, its name and its keys.
func (tx *Tx) deviceKeys(users []matrix.UserID, q string) ([]DeviceKeys, error) {
	var out []DeviceKeys
	if len(users) == 0 {
		return nil, nil
	}
	err := tx.query(func(r *sql.Rows) error {
		var user, device, name string
		var d DeviceKeys
		if err := r.Scan(&user, &device, &name, &d.Keys); err != nil {
			return err
		}
		d.UserID, d.DeviceID, d.DisplayName = matrix.UserID(goText(user)), matrix.DeviceID(goText(device)), goText(name)
		out = append(out, d)
		return nil
	}, q, setOf(tx, users))
	return out, err
}

// LoadKeysOfDevice returns the keys of one device, nil when it has none.
func (tx *Tx) LoadKeysOfDevice(user matrix.UserID, device matrix.DeviceID) ([]byte, error) {
	var keys []byte
	err := tx.row(`SELECT keys FROM device_keys WHERE user_id = $1 AND device_id = $2`, []any{dbText(string(user)), dbText(string(device))}, &keys)
	if err == ErrNotFound {
		return nil, nil
	}
	return keys, err
}

// PutDeviceKeys stores the keys of a device in place of earlier ones, whose signatures are forgotten.
func (tx *Tx) PutDeviceKeys(user matrix.UserID, device matrix.DeviceID, keys []byte) error {
	u, d := dbText(string(user)), dbText(string(device))
	if err := tx.forgetDeviceSignatures(user, []matrix.DeviceID{device}); err != nil {
		return err
	}
	_, err := tx.exec(`INSERT INTO device_keys (user_id, device_id, keys) VALUES ($1, $2, $3)
		ON CONFLICT (user_id, device_id) DO UPDATE SET keys = excluded.keys`, u, d, keys)
	return err
}

// forgetDeviceSignatures removes the signatures on devices of a user and those that the devices made.
func (tx *Tx) forgetDeviceSignatures(user matrix.UserID, devices []matrix.DeviceID) error {
	ids := make([]string, len(devices))
	for i, d := range devices {
		ids[i] = "ed25519:" + string(d)
	}
	if _, err := tx.exec(`DELETE FROM key_signatures WHERE target_id = $1 AND target_key SET($2)`, dbText(string(user)), setOf(tx, devices)); err != nil {
		return err
	}
	_, err := tx.exec(`DELETE FROM key_signatures WHERE target_id = $1 AND signer_id = $1 AND signer_key SET($2)`, dbText(string(user)), setOf(tx, ids))
	return err
}

// ForgetDeviceKeys removes all that is known of the keys of devices, and returns how many of them had identity keys.
func (tx *Tx) ForgetDeviceKeys(user matrix.UserID, devices []matrix.DeviceID) (int64, error) {
	if len(devices) == 0 {
		return 0, nil
	}
	if _, err := tx.LockDevices(user, devices); err != nil {
		return 0, err
	}
	if err := tx.forgetDeviceSignatures(user, devices); err != nil {
		return 0, err
	}
	u, list := dbText(string(user)), setOf(tx, devices)
	for _, q := range []string{`DELETE FROM one_time_keys WHERE user_id = $1 AND device_id SET($2)`,
		`DELETE FROM claimed_keys WHERE user_id = $1 AND device_id SET($2)`, `DELETE FROM fallback_keys WHERE user_id = $1 AND device_id SET($2)`} {
		if _, err := tx.exec(q, u, list); err != nil {
			return 0, err
		}
	}
	return tx.exec(`DELETE FROM device_keys WHERE user_id = $1 AND device_id SET($2)`, u, list)
}

// ForgetUserKeys removes every key, signature and backup of a user, for an account that is closed.
func (tx *Tx) ForgetUserKeys(user matrix.UserID) error {
	for _, q := range []string{`DELETE FROM device_keys WHERE user_id = $1`, `DELETE FROM one_time_keys WHERE user_id = $1`,
		`DELETE FROM claimed_keys WHERE user_id = $1`, `DELETE FROM fallback_keys WHERE user_id = $1`,
		`DELETE FROM cross_signing_keys WHERE user_id = $1`, `DELETE FROM key_signatures WHERE target_id = $1`,
		`DELETE FROM key_signatures WHERE signer_id = $1`, `DELETE FROM key_backup_sessions WHERE user_id = $1`,
		`DELETE FROM key_backups WHERE user_id = $1`} {
		if _, err := tx.exec(q, dbText(string(user))); err != nil {
			return err
		}
	}
	return nil
}

// LoadCrossSigningKeys returns the cross-signing keys of several users.
func (tx *Tx) LoadCrossSigningKeys(users []matrix.UserID) ([]CrossSigningKey, error) {
	var out []CrossSigningKey
	if len(users) == 0 {
		return nil, nil
	}
	err := tx.query(func(r *sql.Rows) error {
		var user string
		var k CrossSigningKey
		if err := r.Scan(&user, &k.Usage, &k.PublicKey, &k.Key); err != nil {
			return err
		}
		k.UserID = matrix.UserID(goText(user))
		out = append(out, k)
		return nil
	}, `SELECT user_id, usage, public_key, key_json FROM cross_signing_keys WHERE user_id SET($1)`, setOf(tx, users))
	return out, err
}

// HasCrossSigningKey tells whether a name is the public part of one of the user's cross-signing keys, which no device may have
// as its ID.
func (tx *Tx) HasCrossSigningKey(user matrix.UserID, name string) (bool, error) {
	var n int64
	err := tx.row(`SELECT COUNT(*) FROM cross_signing_keys WHERE user_id = $1 AND public_key = $2`, []any{dbText(string(user)), dbText(name)}, &n)
	return n > 0, err
}

// PutCrossSigningKeys stores cross-signing keys of a user in place of those of the same usage.
func (tx *Tx) PutCrossSigningKeys(keys []CrossSigningKey) error {
	rows := make([][]any, len(keys))
	for i, k := range keys {
		rows[i] = []any{dbText(string(k.UserID)), k.Usage, k.PublicKey, k.Key}
	}
	return tx.bulk(`INSERT INTO cross_signing_keys (user_id, usage, public_key, key_json)`, []string{"TEXT", "TEXT", "TEXT", "BYTEA"},
		`ON CONFLICT (user_id, usage) DO UPDATE SET public_key = excluded.public_key, key_json = excluded.key_json`, rows, nil)
}

// DeleteCrossSigningKeys removes the keys of the given usages of a user.
func (tx *Tx) DeleteCrossSigningKeys(user matrix.UserID, usages []string) error {
	_, err := tx.exec(`DELETE FROM cross_signing_keys WHERE user_id = $1 AND usage SET($2)`, dbText(string(user)), setOf(tx, usages))
	return err
}

// ForgetSignaturesOf removes the signatures that keys of a user made and those that were made on them; keys are the public
// parts of cross-signing keys that are no longer in use.
func (tx *Tx) ForgetSignaturesOf(user matrix.UserID, keys []string) error {
	ids := make([]string, len(keys))
	for i, k := range keys {
		ids[i] = "ed25519:" + k
	}
	if _, err := tx.exec(`DELETE FROM key_signatures WHERE target_id = $1 AND target_key SET($2)`, dbText(string(user)), setOf(tx, keys)); err != nil {
		return err
	}
	_, err := tx.exec(`DELETE FROM key_signatures WHERE signer_id = $1 AND signer_key SET($2)`, dbText(string(user)), setOf(tx, ids))
	return err
}

// LoadKeySignatures returns the signatures on keys of several users that a viewer may see: those that the owners made
// themselves and the viewer's own.
func (tx *Tx) LoadKeySignatures(users []matrix.UserID, viewer matrix.UserID) ([]KeySignature, error) {
	var out []KeySignature
	if len(users) == 0 {
		return nil, nil
	}
	err := tx.query(func(r *sql.Rows) error {
		var target, key, signer, by string
		var s KeySignature
		if err := r.Scan(&target, &key, &signer, &by, &s.Signature); err != nil {
			return err
		}
		s.TargetID, s.TargetKey, s.SignerID, s.SignerKey = matrix.UserID(goText(target)), goText(key), matrix.UserID(goText(signer)), goText(by)
		out = append(out, s)
		return nil
	}, `SELECT target_id, target_key, signer_id, signer_key, signature FROM key_signatures
		WHERE target_id SET($1) AND (signer_id = target_id OR signer_id = $2) ORDER BY target_id, target_key, signer_id, signer_key`,
		setOf(tx, users), dbText(string(viewer)))
	return out, err
}

// PutKeySignatures stores signatures and returns how many of them are new or different. pos is the position under which the
// signer's devices hear of them.
func (tx *Tx) PutKeySignatures(list []KeySignature, pos int64) (int, error) {
	rows := make([][]any, len(list))
	for i, s := range list {
		rows[i] = []any{dbText(string(s.TargetID)), dbText(s.TargetKey), dbText(string(s.SignerID)), dbText(s.SignerKey), s.Signature, pos}
	}
	changed := 0
	err := tx.bulk(`INSERT INTO key_signatures (target_id, target_key, signer_id, signer_key, signature, pos)`,
		[]string{"TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "BIGINT"}, `ON CONFLICT (target_id, target_key, signer_id, signer_key)
		DO UPDATE SET signature = excluded.signature, pos = excluded.pos WHERE key_signatures.signature <> excluded.signature RETURNING 1`,
		rows, func(*sql.Rows) error {
			changed++
			return nil
		})
	return changed, err
}

// AnnounceSignatures puts into the log that a user signed keys of others, and returns the position.
func (tx *Tx) AnnounceSignatures(signer matrix.UserID) (int64, error) {
	pos, err := tx.emit(Entry{Kind: KindNotice, Name: NoticeSignatures, Ref: string(signer)})
	if err != nil {
		return 0, err
	}
	_, err = tx.exec(`INSERT INTO notices (pos, name, ref, created_ts) VALUES ($1, $2, $3, $4)`, pos, NoticeSignatures, dbText(string(signer)), tx.nowMS())
	return pos, err
}

// AnnounceOneTimeKeys puts into the log that the one-time or fallback keys of users changed.
func (tx *Tx) AnnounceOneTimeKeys(users []matrix.UserID) error {
	if len(users) == 0 {
		return nil
	}
	last, _, err := tx.raise(int64(len(users)), 0)
	if err != nil {
		return err
	}
	rows, now := make([][]any, len(users)), tx.nowMS()
	for i, u := range users {
		pos := last - int64(len(users)) + 1 + int64(i)
		tx.entries = append(tx.entries, Entry{Pos: pos, Kind: KindNotice, Name: NoticeOneTimeKeys, Ref: string(u)})
		rows[i] = []any{pos, NoticeOneTimeKeys, dbText(string(u)), now}
	}
	return tx.bulk(`INSERT INTO notices (pos, name, ref, created_ts)`, []string{"BIGINT", "TEXT", "TEXT", "BIGINT"}, "", rows, nil)
}

// sharing follows a SELECT where several transactions write at a time: what was read is not deleted before this one ends.
func (tx *Tx) sharing() string {
	if tx.db.d.singleWriter {
		return ""
	}
	return " FOR KEY SHARE"
}

// LoadDeviceIDs returns the devices of several users, ordered by user and ID. They are not deleted before the transaction ends.
func (tx *Tx) LoadDeviceIDs(users []matrix.UserID) (map[matrix.UserID][]matrix.DeviceID, error) {
	out := make(map[matrix.UserID][]matrix.DeviceID, len(users))
	if len(users) == 0 {
		return out, nil
	}
	err := tx.query(func(r *sql.Rows) error {
		var user, device string
		if err := r.Scan(&user, &device); err != nil {
			return err
		}
		u := matrix.UserID(goText(user))
		out[u] = append(out[u], matrix.DeviceID(goText(device)))
		return nil
	}, `SELECT user_id, device_id FROM devices WHERE user_id SET($1) ORDER BY user_id, device_id`+tx.sharing(), setOf(tx, users))
	return out, err
}
