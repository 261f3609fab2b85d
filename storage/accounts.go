package storage

import (
	"database/sql"
	"fmt"

	"github.com/go-json-experiment/json"

	"hansa/matrix"
)

// User is an account of a tenant of this deployment.
type User struct {
	ID     matrix.UserID
	Tenant matrix.ServerName
	// Kind is what policies tell accounts apart by: user, bot, ghost or bridge.
	Kind string
	// Admin accounts administer their tenant.
	Admin bool
	// Listed accounts are on the tenant's whitelist whatever its files say.
	Listed bool
	// Locked accounts cannot use their sessions, suspended ones cannot act, deactivated ones are gone for good.
	Locked, Suspended, Deactivated bool
	// Password is the encoded hash, empty for an account that cannot log in with a password.
	Password string
	// Appservice is the ID of the application service that owns the account, else empty.
	Appservice string
	// Pools are the pools given to the account itself; a tenant's files may add more.
	Pools, Groups, Roles []string
	Attributes           map[string]string
	CreatedTS            int64
}

// UserChange says what to change of an account; nil members stay as they are.
type UserChange struct {
	Kind                             *string
	Admin, Listed, Locked, Suspended *bool
	Password                         *string
	Pools, Groups, Roles             *[]string
	Attributes                       *map[string]string
}

const userColumns = `u.user_id, u.tenant, u.kind, u.admin, u.listed, u.locked, u.suspended, u.deactivated, u.password, u.appservice,
	u.pools, u.groups_in, u.roles, u.attributes, u.created_ts`

const selectUserSQL = `SELECT ` + userColumns + ` FROM users u `

// userScan receives the columns of userColumns.
type userScan struct {
	id, tenant, kind, password, appservice, pools, groups, roles, attributes string
	admin, listed, locked, suspended, deactivated                            bool
	created                                                                  int64
}

func (s *userScan) dest() []any {
	return []any{&s.id, &s.tenant, &s.kind, &s.admin, &s.listed, &s.locked, &s.suspended, &s.deactivated, &s.password, &s.appservice,
		&s.pools, &s.groups, &s.roles, &s.attributes, &s.created}
}

func (s *userScan) user() (*User, error) {
	u := &User{ID: matrix.UserID(goText(s.id)), Tenant: matrix.ServerName(s.tenant), Kind: s.kind, Admin: s.admin, Listed: s.listed,
		Locked: s.locked, Suspended: s.suspended, Deactivated: s.deactivated, Password: s.password, Appservice: s.appservice, CreatedTS: s.created}
	for _, p := range []struct {
		text string
		to   any
	}{{s.pools, &u.Pools}, {s.groups, &u.Groups}, {s.roles, &u.Roles}, {s.attributes, &u.Attributes}} {
		if err := json.Unmarshal([]byte(goText(p.text)), p.to); err != nil {
			return nil, fmt.Errorf("facts of %s: %w", u.ID, err)
		}
	}
	return u, nil
}

func listText(list []string) string {
	if len(list) == 0 {
		return "[]"
	}
	b, err := json.Marshal(list)
	if err != nil {
		return "[]" // only text that is not UTF-8, which the callers refuse
	}
	return dbText(string(b))
}

func mapText(m map[string]string) string {
	if len(m) == 0 {
		return "{}"
	}
	b, err := json.Marshal(m, json.Deterministic(true))
	if err != nil {
		return "{}" // as above
	}
	return dbText(string(b))
}

func boolInt(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// InsertUser makes an account. It reports false when the name is taken; the key of the table sees to it that of several who
// ask for one name at a time exactly one gets it.
func (tx *Tx) InsertUser(u *User) (bool, error) {
	n, err := tx.exec(`INSERT INTO users (user_id, tenant, kind, admin, listed, locked, suspended, deactivated, password, appservice,
		pools, groups_in, roles, attributes, created_ts) VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8, $9, $10, $11, $12, $13, $14)
		ON CONFLICT (user_id) DO NOTHING`, dbText(string(u.ID)), string(u.Tenant), u.Kind, boolInt(u.Admin), boolInt(u.Listed),
		boolInt(u.Locked), boolInt(u.Suspended), u.Password, u.Appservice, listText(u.Pools), listText(u.Groups), listText(u.Roles),
		mapText(u.Attributes), u.CreatedTS)
	return n == 1, err
}

func (tx *Tx) users(q string, args ...any) ([]*User, error) {
	var out []*User
	err := tx.query(func(r *sql.Rows) error {
		var s userScan
		if err := r.Scan(s.dest()...); err != nil {
			return err
		}
		u, err := s.user()
		out = append(out, u)
		return err
	}, q, args...)
	return out, err
}

// LoadUser returns an account, or ErrNotFound.
func (tx *Tx) LoadUser(id matrix.UserID) (*User, error) {
	list, err := tx.users(selectUserSQL+`WHERE u.user_id = $1`, dbText(string(id)))
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// LoadUsers returns those of the accounts that exist, in no particular order.
func (tx *Tx) LoadUsers(ids []matrix.UserID) ([]*User, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	return tx.users(selectUserSQL+`WHERE u.user_id SET($1)`, setOf(tx, ids))
}

// ListUsers returns a page of a tenant's accounts in the order of their IDs, beginning after one of them.
func (tx *Tx) ListUsers(tenant matrix.ServerName, after matrix.UserID, limit int) ([]*User, error) {
	return tx.users(selectUserSQL+`WHERE u.tenant = $1 AND u.user_id > $2 ORDER BY u.user_id LIMIT $3`, string(tenant), dbText(string(after)), limit)
}

// CountUsers counts a tenant's accounts that are not deactivated.
func (tx *Tx) CountUsers(tenant matrix.ServerName) (int64, error) {
	var n int64
	err := tx.row(`SELECT COUNT(*) FROM users WHERE tenant = $1 AND deactivated = 0`, []any{string(tenant)}, &n)
	return n, err
}

func boolArg(b *bool) any {
	if b == nil {
		return nil
	}
	return boolInt(*b)
}

func stringArg(s *string) any {
	if s == nil {
		return nil
	}
	return *s
}

func listArg(l *[]string) any {
	if l == nil {
		return nil
	}
	return listText(*l)
}

// UpdateUser changes an account that is not deactivated. It reports false when there is none.
func (tx *Tx) UpdateUser(id matrix.UserID, c UserChange) (bool, error) {
	var attributes any
	if c.Attributes != nil {
		attributes = mapText(*c.Attributes)
	}
	n, err := tx.exec(`UPDATE users SET kind = COALESCE(CAST($2 AS TEXT), kind), admin = COALESCE(CAST($3 AS BIGINT), admin),
		listed = COALESCE(CAST($4 AS BIGINT), listed), locked = COALESCE(CAST($5 AS BIGINT), locked),
		suspended = COALESCE(CAST($6 AS BIGINT), suspended), password = COALESCE(CAST($7 AS TEXT), password),
		pools = COALESCE(CAST($8 AS TEXT), pools), groups_in = COALESCE(CAST($9 AS TEXT), groups_in),
		roles = COALESCE(CAST($10 AS TEXT), roles), attributes = COALESCE(CAST($11 AS TEXT), attributes)
		WHERE user_id = $1 AND deactivated = 0`, dbText(string(id)), stringArg(c.Kind), boolArg(c.Admin), boolArg(c.Listed),
		boolArg(c.Locked), boolArg(c.Suspended), stringArg(c.Password), listArg(c.Pools), listArg(c.Groups), listArg(c.Roles), attributes)
	return n == 1, err
}

// DeactivateUser closes an account for good. Its name stays taken. It reports false when there is no such account or it is
// deactivated already.
func (tx *Tx) DeactivateUser(id matrix.UserID) (bool, error) {
	n, err := tx.exec(`UPDATE users SET deactivated = 1, admin = 0, password = '', pools = '[]', groups_in = '[]', roles = '[]',
		attributes = '{}' WHERE user_id = $1 AND deactivated = 0`, dbText(string(id)))
	return n == 1, err
}

// EraseAccount removes what the server keeps for an account beside events: account data, filters and waiting messages. Of its events it notes
// that they are not for those who come later: see PutErased.
func (tx *Tx) EraseAccount(id matrix.UserID) error {
	if err := tx.PutErased(id); err != nil {
		return err
	}
	for _, q := range []string{`DELETE FROM account_data WHERE user_id = $1`, `DELETE FROM filters WHERE user_id = $1`,
		`DELETE FROM to_device WHERE user_id = $1`, `DELETE FROM uia_sessions WHERE owner = $1`} {
		if _, err := tx.exec(q, dbText(string(id))); err != nil {
			return err
		}
	}
	return nil
}
