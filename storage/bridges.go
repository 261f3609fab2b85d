package storage

import (
	"database/sql"
	"fmt"

	"hansa/matrix"
)

// Bridge is what is kept of an application service.
type Bridge struct {
	ID     string
	Tenant matrix.ServerName
	// Suspended bridges can do nothing and are told of nothing.
	Suspended bool
	// Pos is the position up to which it was told of everything.
	Pos int64
	// Sending is the end of the transaction that it has not confirmed, 0 for none.
	Sending int64
	// DeliveredTS is when it last confirmed one, in ms since 1970, 0 for never.
	DeliveredTS int64
}

// TouchBridge makes a bridge known. It is told of what comes after this moment.
func (tx *Tx) TouchBridge(id string, tenant matrix.ServerName) error {
	pos, err := tx.Position()
	if err != nil {
		return err
	}
	_, err = tx.exec(`INSERT INTO bridges (bridge_id, tenant, suspended, pos, sending, delivered_ts) VALUES ($1, $2, 0, $3, 0, 0)
		ON CONFLICT (bridge_id) DO NOTHING`, dbText(id), string(tenant), pos)
	return err
}

// LoadBridges returns all bridges that were ever known.
func (tx *Tx) LoadBridges() ([]Bridge, error) {
	var out []Bridge
	err := tx.query(func(r *sql.Rows) error {
		var b Bridge
		var tenant string
		var suspended int64
		if err := r.Scan(&b.ID, &tenant, &suspended, &b.Pos, &b.Sending, &b.DeliveredTS); err != nil {
			return err
		}
		b.ID, b.Tenant, b.Suspended = goText(b.ID), matrix.ServerName(tenant), suspended != 0
		out = append(out, b)
		return nil
	}, `SELECT bridge_id, tenant, suspended, pos, sending, delivered_ts FROM bridges ORDER BY bridge_id`)
	return out, err
}

// LoadBridge returns one bridge, or ErrNotFound.
func (tx *Tx) LoadBridge(id string) (Bridge, error) {
	b := Bridge{ID: id}
	var tenant string
	var suspended int64
	err := tx.row(`SELECT tenant, suspended, pos, sending, delivered_ts FROM bridges WHERE bridge_id = $1`, []any{dbText(id)},
		&tenant, &suspended, &b.Pos, &b.Sending, &b.DeliveredTS)
	b.Tenant, b.Suspended = matrix.ServerName(tenant), suspended != 0
	return b, err
}

// SuspendBridge stops a bridge, or lets it go on. It reports false when there is no such bridge.
func (tx *Tx) SuspendBridge(id string, suspended bool) (bool, error) {
	n, err := tx.exec(`UPDATE bridges SET suspended = $2 WHERE bridge_id = $1`, dbText(id), boolInt(suspended))
	if err != nil || n == 0 {
		return false, err
	}
	return true, tx.Announce(NoticeBridge, id)
}

// SetBridgeSending says which range a bridge is about to be told of. The range stays the same until it has confirmed it.
func (tx *Tx) SetBridgeSending(id string, pos, sending int64) error {
	_, err := tx.exec(`UPDATE bridges SET pos = $2, sending = $3 WHERE bridge_id = $1 AND pos <= $2`, dbText(id), pos, sending)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", id, err)
	}
	return nil
}

// SetBridgePos moves a bridge on. delivered is when it confirmed a transaction, 0 where there was nothing to tell it of.
func (tx *Tx) SetBridgePos(id string, pos, delivered int64) error {
	_, err := tx.exec(`UPDATE bridges SET pos = $2, sending = 0, delivered_ts = CASE WHEN CAST($3 AS BIGINT) > 0 THEN CAST($3 AS BIGINT) ELSE delivered_ts END WHERE bridge_id = $1 AND pos <= $2`,
		dbText(id), pos, delivered)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", id, err)
	}
	return nil
}

// LoadBridgeMembers returns the users of a bridge that have, or had, to do with a room.
func (tx *Tx) LoadBridgeMembers(room matrix.RoomID, bridge string) ([]Member, error) {
	return tx.members(selectMembersSQL+`JOIN users u ON u.user_id = m.user_id WHERE r.room_id = $1 AND u.appservice = $2`, dbText(string(room)), dbText(bridge))
}

// IsTenantIn tells whether somebody of a tenant is joined to a room.
func (tx *Tx) IsTenantIn(room matrix.RoomID, tenant matrix.ServerName) (bool, error) {
	var n int64
	err := tx.row(`SELECT COUNT(*) FROM (SELECT 1 FROM memberships m JOIN rooms r ON r.room_num = m.room_num JOIN users u ON u.user_id = m.user_id
		WHERE r.room_id = $1 AND m.membership = 'join' AND u.tenant = $2 LIMIT 1) AS found`, []any{dbText(string(room)), string(tenant)}, &n)
	return n > 0, err
}
