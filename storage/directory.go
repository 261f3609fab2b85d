package storage

import (
	"database/sql"

	"hansa/matrix"
)

// Alias is the address of a room.
type Alias struct {
	Alias  matrix.RoomAlias
	RoomID matrix.RoomID
	// Creator is who made it.
	Creator   matrix.UserID
	CreatedTS int64
}

// PutAlias makes an alias. It reports false when the name is taken.
func (tx *Tx) PutAlias(a Alias) (bool, error) {
	n, err := tx.exec(`INSERT INTO room_aliases (alias, server, room_id, creator, created_ts) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (alias) DO NOTHING`, dbText(string(a.Alias)), string(a.Alias.Server()), string(a.RoomID), dbText(string(a.Creator)), tx.nowMS())
	return n == 1, err
}

const selectAliasSQL = `SELECT alias, room_id, creator, created_ts FROM room_aliases `

func (tx *Tx) aliases(q string, args ...any) ([]Alias, error) {
	var out []Alias
	err := tx.query(func(r *sql.Rows) error {
		var a Alias
		var alias, room, creator string
		if err := r.Scan(&alias, &room, &creator, &a.CreatedTS); err != nil {
			return err
		}
		a.Alias, a.RoomID, a.Creator = matrix.RoomAlias(goText(alias)), matrix.RoomID(room), matrix.UserID(goText(creator))
		out = append(out, a)
		return nil
	}, q, args...)
	return out, err
}

// LoadAlias returns an alias, or ErrNotFound.
func (tx *Tx) LoadAlias(alias matrix.RoomAlias) (*Alias, error) {
	list, err := tx.aliases(selectAliasSQL+`WHERE alias = $1`, dbText(string(alias)))
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return &list[0], nil
}

// LoadAliases returns the aliases of a room on a server, in order.
func (tx *Tx) LoadAliases(room matrix.RoomID, server matrix.ServerName) ([]Alias, error) {
	return tx.aliases(selectAliasSQL+`WHERE room_id = $1 AND server = $2 ORDER BY alias`, string(room), string(server))
}

// DeleteAlias removes an alias of a room. It reports false when there is none.
func (tx *Tx) DeleteAlias(alias matrix.RoomAlias, room matrix.RoomID) (bool, error) {
	n, err := tx.exec(`DELETE FROM room_aliases WHERE alias = $1 AND room_id = $2`, dbText(string(alias)), string(room))
	return n == 1, err
}

// MoveAliases makes the aliases of a room on a server lead to another room.
func (tx *Tx) MoveAliases(from, to matrix.RoomID, server matrix.ServerName) (int64, error) {
	return tx.exec(`UPDATE room_aliases SET room_id = $2 WHERE room_id = $1 AND server = $3`, string(from), string(to), string(server))
}

// Publish puts a room into the list of a tenant. It reports false when it is there.
func (tx *Tx) Publish(tenant matrix.ServerName, room matrix.RoomID, by matrix.UserID) (bool, error) {
	n, err := tx.exec(`INSERT INTO published_rooms (tenant, room_id, publisher, created_ts) VALUES ($1, $2, $3, $4)
		ON CONFLICT (tenant, room_id) DO NOTHING`, string(tenant), string(room), dbText(string(by)), tx.nowMS())
	return n == 1, err
}

// Unpublish takes a room out of the list of a tenant. It reports false when it is not there.
func (tx *Tx) Unpublish(tenant matrix.ServerName, room matrix.RoomID) (bool, error) {
	n, err := tx.exec(`DELETE FROM published_rooms WHERE tenant = $1 AND room_id = $2`, string(tenant), string(room))
	return n == 1, err
}

// IsPublished tells whether a room stands in the list of a tenant.
func (tx *Tx) IsPublished(tenant matrix.ServerName, room matrix.RoomID) (bool, error) {
	var n int64
	err := tx.row(`SELECT COUNT(*) FROM published_rooms WHERE tenant = $1 AND room_id = $2`, []any{string(tenant), string(room)}, &n)
	return n == 1, err
}

// PublishedRoom is an entry of the list of a tenant.
type PublishedRoom struct {
	RoomID matrix.RoomID
	// Joined is how many users are in it.
	Joined int64
}

const publishedSQL = `SELECT q.room_id, q.joined FROM (SELECT p.room_id AS room_id, (SELECT COUNT(*) FROM memberships m
		WHERE m.room_num = r.room_num AND m.membership = 'join') AS joined
	FROM published_rooms p JOIN rooms r ON r.room_id = p.room_id WHERE p.tenant = $1) q `

// LoadPublishedRooms returns a page of the list of a tenant, the largest room first. With after it is the page behind that entry,
// or, where dir is Backward, the one before it, nearest first.
func (tx *Tx) LoadPublishedRooms(tenant matrix.ServerName, after *PublishedRoom, dir Direction, limit int) ([]PublishedRoom, error) {
	var out []PublishedRoom
	scan := func(r *sql.Rows) error {
		var p PublishedRoom
		var room string
		err := r.Scan(&room, &p.Joined)
		p.RoomID = matrix.RoomID(room)
		out = append(out, p)
		return err
	}
	switch {
	case after == nil:
		err := tx.query(scan, publishedSQL+`ORDER BY q.joined DESC, q.room_id LIMIT $2`, string(tenant), limit)
		return out, err
	case dir == Forward:
		err := tx.query(scan, publishedSQL+`WHERE q.joined < $2 OR q.joined = $2 AND q.room_id > $3 ORDER BY q.joined DESC, q.room_id LIMIT $4`,
			string(tenant), after.Joined, string(after.RoomID), limit)
		return out, err
	}
	err := tx.query(scan, publishedSQL+`WHERE q.joined > $2 OR q.joined = $2 AND q.room_id < $3 ORDER BY q.joined, q.room_id DESC LIMIT $4`,
		string(tenant), after.Joined, string(after.RoomID), limit)
	return out, err
}
