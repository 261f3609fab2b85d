package storage

import (
	"database/sql"
	"errors"

	"hansa/matrix"
)

// ProfileField is one member of a user's profile; Value is JSON.
type ProfileField struct {
	UserID matrix.UserID
	Field  string
	Value  []byte
}

// SetProfileField stores one member of a profile.
func (tx *Tx) SetProfileField(f ProfileField) error {
	_, err := tx.exec(`INSERT INTO profiles (user_id, field, value) VALUES ($1, $2, $3)
		ON CONFLICT (user_id, field) DO UPDATE SET value = excluded.value`, dbText(string(f.UserID)), dbText(f.Field), f.Value)
	return err
}

// DeleteProfileField removes one member of a profile, or all when field is empty, and returns how many there were.
func (tx *Tx) DeleteProfileField(user matrix.UserID, field string) (int64, error) {
	return tx.exec(`DELETE FROM profiles WHERE user_id = $1 AND (field = $2 OR CAST($2 AS TEXT) = '')`, dbText(string(user)), dbText(field))
}

// LoadProfiles returns the profiles of local users, ordered by user and field. With fields, only those members.
func (tx *Tx) LoadProfiles(users []matrix.UserID, fields ...string) ([]ProfileField, error) {
	if len(users) == 0 {
		return nil, nil
	}
	q, args := `SELECT user_id, field, value FROM profiles WHERE user_id SET($1) ORDER BY user_id, field`, []any{setOf(tx, users)}
	if len(fields) > 0 {
		q, args = `SELECT user_id, field, value FROM profiles WHERE user_id SET($1) AND field SET($2) ORDER BY user_id, field`, append(args, setOf(tx, fields))
	}
	var out []ProfileField
	err := tx.query(func(r *sql.Rows) error {
		var user, field string
		var p ProfileField
		if err := r.Scan(&user, &field, &p.Value); err != nil {
			return err
		}
		p.UserID, p.Field = matrix.UserID(goText(user)), goText(field)
		out = append(out, p)
		return nil
	}, q, args...)
	return out, err
}

// LoadAccountDataUsage returns how many account data a user has and how many bytes they take.
func (tx *Tx) LoadAccountDataUsage(user matrix.UserID) (count, bytes int64, err error) {
	err = tx.row(`SELECT COUNT(*), CAST(COALESCE(SUM(LENGTH(content)), 0) AS BIGINT) FROM account_data WHERE user_id = $1`,
		[]any{dbText(string(user))}, &count, &bytes)
	return count, bytes, err
}

// PutFilter stores a filter of a user under an ID that its content decides.
func (tx *Tx) PutFilter(user matrix.UserID, id string, definition []byte) error {
	_, err := tx.exec(`INSERT INTO filters (user_id, filter_id, definition, created_ts) VALUES ($1, $2, $3, $4)
		ON CONFLICT (user_id, filter_id) DO NOTHING`, dbText(string(user)), id, definition, tx.nowMS())
	return err
}

// LoadFilter returns a filter, or ErrNotFound.
func (tx *Tx) LoadFilter(user matrix.UserID, id string) ([]byte, error) {
	var definition []byte
	err := tx.row(`SELECT definition FROM filters WHERE user_id = $1 AND filter_id = $2`, []any{dbText(string(user)), dbText(id)}, &definition)
	return definition, err
}

// CountFilters counts the filters of a user.
func (tx *Tx) CountFilters(user matrix.UserID) (int64, error) {
	var n int64
	err := tx.row(`SELECT COUNT(*) FROM filters WHERE user_id = $1`, []any{dbText(string(user))}, &n)
	return n, err
}

// UIASession is a user-interactive authentication that is under way. It holds no secret and nothing of the request but a MAC.
type UIASession struct {
	IDHash []byte
	// Owner is whom the session counts for: the user, or where a stranger comes from.
	Owner string
	// UserID is the user who must finish it, empty at registration.
	UserID matrix.UserID
	Tenant matrix.ServerName
	// RequestMAC binds it to method, URI and body of the request.
	RequestMAC []byte
	// Completed is a JSON object of the stages that are done and what they left.
	Completed string
	ExpiresTS int64
}

// PutUIASession stores a new session, forgets expired ones, and the oldest ones of the owner beyond limit.
func (tx *Tx) PutUIASession(u UIASession, limit int) error {
	now := tx.nowMS()
	if _, err := tx.exec(`DELETE FROM uia_sessions WHERE expires_ts <= $1`, now); err != nil {
		return err
	}
	if _, err := tx.exec(`INSERT INTO uia_sessions (id_hash, owner, user_id, tenant, request_mac, completed, created_ts, expires_ts)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`, u.IDHash, dbText(u.Owner), dbText(string(u.UserID)), string(u.Tenant), u.RequestMAC,
		u.Completed, now, u.ExpiresTS); err != nil {
		return err
	}
	_, err := tx.exec(`DELETE FROM uia_sessions WHERE owner = $1 AND id_hash IN
		(SELECT id_hash FROM uia_sessions WHERE owner = $1 ORDER BY created_ts DESC, id_hash LIMIT 1000 OFFSET $2)`, dbText(u.Owner), limit)
	return err
}

// LoadUIASession returns a session that has not expired, or ErrNotFound.
func (tx *Tx) LoadUIASession(idHash []byte) (*UIASession, error) {
	u := &UIASession{IDHash: idHash}
	var owner, user, tenant string
	err := tx.row(`SELECT owner, user_id, tenant, request_mac, completed, expires_ts FROM uia_sessions WHERE id_hash = $1 AND expires_ts > $2`,
		[]any{idHash, tx.nowMS()}, &owner, &user, &tenant, &u.RequestMAC, &u.Completed, &u.ExpiresTS)
	u.Owner, u.UserID, u.Tenant = goText(owner), matrix.UserID(goText(user)), matrix.ServerName(tenant)
	return u, err
}

// SetUIACompleted notes the stages that are done.
func (tx *Tx) SetUIACompleted(idHash []byte, completed string) error {
	_, err := tx.exec(`UPDATE uia_sessions SET completed = $2 WHERE id_hash = $1`, idHash, completed)
	return err
}

// TakeUIASession removes a session. Of several who finish one at a time, one gets true.
func (tx *Tx) TakeUIASession(idHash []byte) (bool, error) {
	n, err := tx.exec(`DELETE FROM uia_sessions WHERE id_hash = $1`, idHash)
	return n == 1, err
}

// RegistrationToken lets people make accounts. Its text is kept only as a hash.
type RegistrationToken struct {
	Tenant matrix.ServerName
	Hash   []byte
	// Hint is the beginning of the text, for the list.
	Hint string
	// UsesAllowed is how many accounts it is good for, -1 for any number.
	UsesAllowed, Uses    int64
	ExpiresTS, CreatedTS int64
}

// PutRegistrationToken stores a token. It reports false when the tenant has it already.
func (tx *Tx) PutRegistrationToken(t RegistrationToken) (bool, error) {
	n, err := tx.exec(`INSERT INTO registration_tokens (tenant, token_hash, hint, uses_allowed, uses, expires_ts, created_ts)
		VALUES ($1, $2, $3, $4, 0, $5, $6) ON CONFLICT (tenant, token_hash) DO NOTHING`,
		string(t.Tenant), t.Hash, dbText(t.Hint), t.UsesAllowed, t.ExpiresTS, tx.nowMS())
	return n == 1, err
}

// ListRegistrationTokens returns a tenant's tokens, the oldest first.
func (tx *Tx) ListRegistrationTokens(tenant matrix.ServerName) ([]RegistrationToken, error) {
	var out []RegistrationToken
	err := tx.query(func(r *sql.Rows) error {
		t := RegistrationToken{Tenant: tenant}
		var hint string
		if err := r.Scan(&t.Hash, &hint, &t.UsesAllowed, &t.Uses, &t.ExpiresTS, &t.CreatedTS); err != nil {
			return err
		}
		t.Hint = goText(hint)
		out = append(out, t)
		return nil
	}, `SELECT token_hash, hint, uses_allowed, uses, expires_ts, created_ts FROM registration_tokens WHERE tenant = $1
		ORDER BY created_ts, token_hash LIMIT 10000`, string(tenant))
	return out, err
}

// DeleteRegistrationToken removes a token. It reports false when there is none.
func (tx *Tx) DeleteRegistrationToken(tenant matrix.ServerName, hash []byte) (bool, error) {
	n, err := tx.exec(`DELETE FROM registration_tokens WHERE tenant = $1 AND token_hash = $2`, string(tenant), hash)
	return n == 1, err
}

// IsRegistrationToken tells whether a token is good for one more account.
func (tx *Tx) IsRegistrationToken(tenant matrix.ServerName, hash []byte) (bool, error) {
	var one int64
	err := tx.row(`SELECT 1 FROM registration_tokens WHERE tenant = $1 AND token_hash = $2 AND (uses_allowed < 0 OR uses < uses_allowed)
		AND (expires_ts = 0 OR expires_ts > $3)`, []any{string(tenant), hash, tx.nowMS()}, &one)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// UseRegistrationToken takes one use of a token. It reports false when the token is not good, or no longer.
func (tx *Tx) UseRegistrationToken(tenant matrix.ServerName, hash []byte) (bool, error) {
	n, err := tx.exec(`UPDATE registration_tokens SET uses = uses + 1 WHERE tenant = $1 AND token_hash = $2
		AND (uses_allowed < 0 OR uses < uses_allowed) AND (expires_ts = 0 OR expires_ts > $3)`, string(tenant), hash, tx.nowMS())
	return n == 1, err
}

// UseNonce notes that a nonce was used, and forgets those that have expired. Of several who use one, one gets true.
func (tx *Tx) UseNonce(hash []byte, expires int64) (bool, error) {
	if _, err := tx.exec(`DELETE FROM used_nonces WHERE expires_ts <= $1`, tx.nowMS()); err != nil {
		return false, err
	}
	n, err := tx.exec(`INSERT INTO used_nonces (nonce_hash, expires_ts) VALUES ($1, $2) ON CONFLICT (nonce_hash) DO NOTHING`, hash, expires)
	return n == 1, err
}
