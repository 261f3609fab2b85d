package storage

import (
	"database/sql"

	"hansa/matrix"
)

// OneTimeKey is a one-time or fallback key of a device. Key is its canonical JSON.
type OneTimeKey struct {
	UserID    matrix.UserID
	DeviceID  matrix.DeviceID
	Algorithm string
	KeyID     string
	Key       []byte
}

// KnownKey is a one-time key that a device has uploaded before: one that waits (Key), or one that was claimed (Hash).
type KnownKey struct {
	Algorithm, KeyID string
	Key, Hash        []byte
}

// LoadKnownKeys returns those of a device's one-time keys, waiting or claimed, that have one of the IDs.
func (tx *Tx) LoadKnownKeys(user matrix.UserID, device matrix.DeviceID, ids []string) ([]KnownKey, error) {
	var out []KnownKey
	err := tx.query(func(r *sql.Rows) error {
		var claimed bool
		var algorithm, id string
		var data []byte
		if err := r.Scan(&claimed, &algorithm, &id, &data); err != nil {
			return err
		}
		k := KnownKey{Algorithm: goText(algorithm), KeyID: goText(id), Key: data}
		if claimed {
			k.Key, k.Hash = nil, data
		}
		out = append(out, k)
		return nil
	}, `SELECT 0, algorithm, key_id, key_json FROM one_time_keys WHERE user_id = $1 AND device_id = $2 AND key_id SET($3)
		UNION ALL SELECT 1, algorithm, key_id, hash FROM claimed_keys WHERE user_id = $1 AND device_id = $2 AND key_id SET($3)`,
		dbText(string(user)), dbText(string(device)), setOf(tx, ids))
	return out, err
}

// PutOneTimeKeys stores one-time keys that are not there yet. They are claimed in the order of the calls.
func (tx *Tx) PutOneTimeKeys(list []OneTimeKey) error {
	if len(list) == 0 {
		return nil
	}
	// A key's number is a position of the log that has no entry: it is unique, and rises on every node.
	last, _, err := tx.raise(int64(len(list)), 0)
	if err != nil {
		return err
	}
	rows := make([][]any, len(list))
	for i, k := range list {
		rows[i] = []any{last - int64(len(list)) + 1 + int64(i), dbText(string(k.UserID)), dbText(string(k.DeviceID)), dbText(k.Algorithm), dbText(k.KeyID), k.Key}
	}
	return tx.bulk(`INSERT INTO one_time_keys (key_num, user_id, device_id, algorithm, key_id, key_json)`,
		[]string{"BIGINT", "TEXT", "TEXT", "TEXT", "TEXT", "BYTEA"}, "", rows, nil)
}

// PruneClaimedKeys forgets which of a device's keys were claimed before a time in ms.
func (tx *Tx) PruneClaimedKeys(user matrix.UserID, device matrix.DeviceID, before int64) error {
	_, err := tx.exec(`DELETE FROM claimed_keys WHERE user_id = $1 AND device_id = $2 AND claimed_ts < $3`, dbText(string(user)), dbText(string(device)), before)
	return err
}

// PutFallbackKey stores a fallback key in place of the one of the same algorithm, and reports whether it is another one. A
// key that is the same as before stays used.
func (tx *Tx) PutFallbackKey(k OneTimeKey) (bool, error) {
	n, err := tx.exec(`INSERT INTO fallback_keys (user_id, device_id, algorithm, key_id, key_json, used) VALUES ($1, $2, $3, $4, $5, 0)
		ON CONFLICT (user_id, device_id, algorithm) DO UPDATE SET key_id = excluded.key_id, key_json = excluded.key_json, used = 0
		WHERE fallback_keys.key_id <> excluded.key_id OR fallback_keys.key_json <> excluded.key_json`,
		dbText(string(k.UserID)), dbText(string(k.DeviceID)), dbText(k.Algorithm), dbText(k.KeyID), k.Key)
	return n == 1, err
}

// KeyCounts says how many one-time keys of each algorithm a device has left, and of which algorithms its fallback key is unused.
type KeyCounts struct {
	OneTime map[string]int
	Unused  []string
}

// LoadKeyCounts counts what is left of a device's one-time and fallback keys.
func (tx *Tx) LoadKeyCounts(user matrix.UserID, device matrix.DeviceID) (KeyCounts, error) {
	c := KeyCounts{OneTime: map[string]int{}}
	err := tx.query(func(r *sql.Rows) error {
		var kind, n int64
		var algorithm string
		if err := r.Scan(&kind, &algorithm, &n); err != nil {
			return err
		}
		if kind == 0 {
			c.OneTime[goText(algorithm)] = int(n)
		} else {
			c.Unused = append(c.Unused, goText(algorithm))
		}
		return nil
	}, `SELECT 0, algorithm, COUNT(*) FROM one_time_keys WHERE user_id = $1 AND device_id = $2 GROUP BY algorithm
		UNION ALL SELECT 1, algorithm, 1 FROM fallback_keys WHERE user_id = $1 AND device_id = $2 AND used = 0 ORDER BY 1, 2`,
		dbText(string(user)), dbText(string(device)))
	return c, err
}

// Claim asks for a key of one device.
type Claim struct {
	UserID    matrix.UserID
	DeviceID  matrix.DeviceID
	Algorithm string
}

func claimRows(list []Claim) [][]any {
	rows := make([][]any, len(list))
	for i, c := range list {
		rows[i] = []any{dbText(string(c.UserID)), dbText(string(c.DeviceID)), dbText(c.Algorithm)}
	}
	return rows
}

func claimTypes() []string { return []string{"TEXT", "TEXT", "TEXT"} }

func scanKey(r *sql.Rows, more ...any) (OneTimeKey, error) {
	var user, device, algorithm, id string
	var k OneTimeKey
	err := r.Scan(append([]any{&user, &device, &algorithm, &id, &k.Key}, more...)...)
	k.UserID, k.DeviceID, k.Algorithm, k.KeyID = matrix.UserID(goText(user)), matrix.DeviceID(goText(device)), goText(algorithm), goText(id)
	return k, err
}

const (
	claimHeadSQL = `WITH wanted AS (`
	claimTailSQL = `) DELETE FROM one_time_keys WHERE key_num IN (SELECT (SELECT k.key_num FROM one_time_keys k WHERE k.user_id = w.column1
		AND k.device_id = w.column2 AND k.algorithm = w.column3 ORDER BY k.key_num LIMIT 1`
	claimReturnSQL = `) FROM wanted w) RETURNING user_id, device_id, algorithm, key_id, key_json`
)

// ClaimOneTimeKeys takes, for each claim, the oldest one-time key that is left, and returns the keys taken: each key is given
// out once. No two claims are for the same device and algorithm.
func (tx *Tx) ClaimOneTimeKeys(list []Claim) ([]OneTimeKey, error) {
	if len(list) == 0 {
		return nil, nil
	}
	tail := claimTailSQL + claimReturnSQL
	if !tx.db.d.singleWriter {
		// A key that another transaction is taking is passed over, so that nobody waits and nobody comes away with nothing.
		tail = claimTailSQL + " FOR UPDATE SKIP LOCKED" + claimReturnSQL
	}
	var out []OneTimeKey
	err := tx.bulk(claimHeadSQL, claimTypes(), tail, claimRows(list), func(r *sql.Rows) error {
		k, err := scanKey(r)
		out = append(out, k)
		return err
	})
	return out, err
}

// PutClaimedKeys remembers which one-time keys were given out, by a hash of each, so that a repeated upload does not bring
// them back.
func (tx *Tx) PutClaimedKeys(list []OneTimeKey, hash func([]byte) []byte) error {
	rows, now := make([][]any, len(list)), tx.nowMS()
	for i, k := range list {
		rows[i] = []any{dbText(string(k.UserID)), dbText(string(k.DeviceID)), dbText(k.Algorithm), dbText(k.KeyID), hash(k.Key), now}
	}
	return tx.bulk(`INSERT INTO claimed_keys (user_id, device_id, algorithm, key_id, hash, claimed_ts)`,
		[]string{"TEXT", "TEXT", "TEXT", "TEXT", "BYTEA", "BIGINT"},
		`ON CONFLICT (user_id, device_id, algorithm, key_id) DO UPDATE SET hash = excluded.hash, claimed_ts = excluded.claimed_ts`, rows, nil)
}

// UseFallbackKeys returns the fallback keys for claims and marks them as used. fresh are the users of whom one was not used before.
func (tx *Tx) UseFallbackKeys(list []Claim) (keys []OneTimeKey, fresh []matrix.UserID, err error) {
	var unused []Claim
	err = tx.bulk(`WITH wanted AS (`, claimTypes(), `) SELECT f.user_id, f.device_id, f.algorithm, f.key_id, f.key_json, f.used FROM wanted w
		JOIN fallback_keys f ON f.user_id = w.column1 AND f.device_id = w.column2 AND f.algorithm = w.column3 ORDER BY 1, 2, 3`,
		claimRows(list), func(r *sql.Rows) error {
			var used bool
			k, err := scanKey(r, &used)
			keys = append(keys, k)
			if !used {
				unused = append(unused, Claim{k.UserID, k.DeviceID, k.Algorithm})
				if len(fresh) == 0 || fresh[len(fresh)-1] != k.UserID {
					fresh = append(fresh, k.UserID)
				}
			}
			return err
		})
	if err != nil || len(unused) == 0 {
		return keys, nil, err
	}
	err = tx.bulk(`WITH wanted AS (`, claimTypes(), `) UPDATE fallback_keys SET used = 1 FROM wanted WHERE fallback_keys.user_id = wanted.column1
		AND fallback_keys.device_id = wanted.column2 AND fallback_keys.algorithm = wanted.column3`, claimRows(unused), nil)
	return keys, fresh, err
}

// ForgetOneTimeKeys removes the one-time and fallback keys of a device, after it came by a new identity.
func (tx *Tx) ForgetOneTimeKeys(user matrix.UserID, device matrix.DeviceID) error {
	for _, q := range []string{`DELETE FROM one_time_keys WHERE user_id = $1 AND device_id = $2`,
		`DELETE FROM claimed_keys WHERE user_id = $1 AND device_id = $2`, `DELETE FROM fallback_keys WHERE user_id = $1 AND device_id = $2`} {
		if _, err := tx.exec(q, dbText(string(user)), dbText(string(device))); err != nil {
			return err
		}
	}
	return nil
}
