package storage

import (
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"hansa/matrix"
)

// ErrNotHeld is wrapped by the error of a write that is fenced by a lease which another node has taken in the meantime.
var ErrNotHeld = errors.New("storage: the lease is held by another node")

// Cell is one deployment: its nodes and their database. The name tells it from other deployments, the secret is known to its nodes
// alone.
type Cell struct {
	Name   string
	Secret []byte
}

// LoadCell returns the cell of this database, which is named when the first node asks.
func (tx *Tx) LoadCell() (Cell, error) {
	b := make([]byte, 48)
	if _, err := rand.Read(b); err != nil {
		return Cell{}, err
	}
	if _, err := tx.exec(`INSERT INTO cell (id, name, secret) VALUES (1, $1, $2) ON CONFLICT (id) DO NOTHING`, hex.EncodeToString(b[:16]), b[16:]); err != nil {
		return Cell{}, err
	}
	var c Cell
	err := tx.row(`SELECT name, secret FROM cell WHERE id = 1`, nil, &c.Name, &c.Secret)
	return c, err
}

// Node is a living process of the cell.
type Node struct {
	ID string
	// Host is the name of the machine, for people.
	Host string
	// Revision is the policy that is active on the node.
	Revision string
	// Tenants are the domains that it hosts.
	Tenants []matrix.ServerName
}

// Lease is the right of one node to do something that one node does at a time. The epoch is raised whenever another node takes it:
// who writes with an older one has lost the lease without knowing yet.
type Lease struct {
	Name  string
	Node  string
	Epoch int64
	// Free is true when nobody holds it: it was given back, or the time of the holder is over by the clock of the database.
	Free bool
	// Lost is true when it was not given back.
	Lost bool
}

// TouchNode says that a node lives for a while from now, and forgets those whose time was over long ago. Times are those of the database.
func (tx *Tx) TouchNode(n Node, ttl time.Duration) error {
	tenants, err := json.Marshal(n.Tenants)
	if err != nil {
		return err
	}
	_, err = tx.exec(`INSERT INTO nodes (node_id, host, revision, tenants, expires_ts) VALUES ($1, $2, $3, $4, `+tx.db.d.clock+` + $5)
		ON CONFLICT (node_id) DO UPDATE SET revision = excluded.revision, tenants = excluded.tenants, expires_ts = excluded.expires_ts`, n.ID, dbText(n.Host),
		dbText(n.Revision), string(tenants), ttl.Milliseconds())
	if err != nil {
		return fmt.Errorf("touch the node: %w", err)
	}
	_, err = tx.exec(`DELETE FROM nodes WHERE expires_ts < `+tx.db.d.clock+` - $1`, time.Hour.Milliseconds())
	return err
}

// RemoveNode forgets a node that stops.
func (tx *Tx) RemoveNode(id string) error {
	_, err := tx.exec(`DELETE FROM nodes WHERE node_id = $1`, id)
	return err
}

// LoadLivingNodes returns the nodes that live.
func (tx *Tx) LoadLivingNodes() ([]Node, error) {
	var out []Node
	err := tx.query(func(r *sql.Rows) error {
		var n Node
		var tenants string
		if err := r.Scan(&n.ID, &n.Host, &n.Revision, &tenants); err != nil {
			return err
		}
		if tenants != "" { // a node of the version before does not say
			if err := json.Unmarshal([]byte(tenants), &n.Tenants); err != nil {
				return fmt.Errorf("tenants of node %s: %w", n.ID, err)
			}
		}
		n.Host, n.Revision = goText(n.Host), goText(n.Revision)
		out = append(out, n)
		return nil
	}, `SELECT node_id, host, revision, tenants FROM nodes WHERE expires_ts > `+tx.db.d.clock+` ORDER BY node_id`)
	return out, err
}

// LoadLeases returns all leases that were ever taken.
func (tx *Tx) LoadLeases() ([]Lease, error) {
	var out []Lease
	err := tx.query(func(r *sql.Rows) error {
		var l Lease
		var free, ended int64
		if err := r.Scan(&l.Name, &l.Node, &l.Epoch, &free, &ended); err != nil {
			return err
		}
		l.Free = free != 0
		l.Lost = l.Free && ended == 0
		out = append(out, l)
		return nil
	}, `SELECT name, node_id, epoch, CASE WHEN expires_ts <= `+tx.db.d.clock+` THEN 1 ELSE 0 END, CASE WHEN expires_ts = 0 THEN 1 ELSE 0 END
		FROM leases ORDER BY name`)
	return out, err
}

// TakeLease takes a lease that nobody holds. It reports false when somebody does.
func (tx *Tx) TakeLease(name, node string, ttl time.Duration) (epoch int64, ok bool, err error) {
	err = tx.row(`INSERT INTO leases (name, node_id, epoch, expires_ts) VALUES ($1, $2, 1, `+tx.db.d.clock+` + $3)
		ON CONFLICT (name) DO UPDATE SET node_id = excluded.node_id, epoch = leases.epoch + 1, expires_ts = excluded.expires_ts
		WHERE leases.expires_ts <= `+tx.db.d.clock+` RETURNING epoch`, []any{name, node, ttl.Milliseconds()}, &epoch)
	if errors.Is(err, ErrNotFound) {
		return 0, false, nil
	}
	return epoch, err == nil, err
}

// RenewLeases prolongs all leases that a node holds, and returns their epochs. One that is missing was lost.
func (tx *Tx) RenewLeases(node string, ttl time.Duration) (map[string]int64, error) {
	out := map[string]int64{}
	err := tx.query(func(r *sql.Rows) error {
		var name string
		var epoch int64
		if err := r.Scan(&name, &epoch); err != nil {
			return err
		}
		out[name] = epoch
		return nil
	}, `UPDATE leases SET expires_ts = `+tx.db.d.clock+` + $2 WHERE node_id = $1 AND expires_ts > 0 RETURNING name, epoch`, node, ttl.Milliseconds())
	return out, err
}

// FreeLease gives a lease back, so that another node can take it at once.
func (tx *Tx) FreeLease(l Lease) error {
	_, err := tx.exec(`UPDATE leases SET expires_ts = 0 WHERE name = $1 AND node_id = $2 AND epoch = $3`, l.Name, l.Node, l.Epoch)
	return err
}

// EndLease ends a lease whose holder's time is over; false when somebody else did that, or the holder has renewed it.
func (tx *Tx) EndLease(l Lease) (bool, error) {
	n, err := tx.exec(`UPDATE leases SET expires_ts = 0 WHERE name = $1 AND node_id = $2 AND epoch = $3 AND expires_ts > 0 AND expires_ts <= `+tx.db.d.clock,
		l.Name, l.Node, l.Epoch)
	return n == 1, err
}

// PruneLeases forgets leases whose name begins in a certain way and that nobody holds.
func (tx *Tx) PruneLeases(prefix string) error {
	_, err := tx.exec(`DELETE FROM leases WHERE expires_ts = 0 AND substr(name, 1, $1) = $2`, int64(len(prefix)), prefix)
	return err
}

// sessionName is what the sessions of a node are called in the database.
func sessionName(node string) string { return "hansa " + node }

// EndSessions ends what a node has under way in the database, and its transactions with it: one that is paused or cut off would hold up the
// others for as long as its transaction is open. It returns how many sessions there were. SQLite has no other nodes.
func (tx *Tx) EndSessions(node string) (n int64, err error) {
	if tx.db.d.endSessions == "" {
		return 0, nil
	}
	err = tx.row(tx.db.d.endSessions, []any{sessionName(node)}, &n)
	return n, err
}

// Fence makes a transaction that writes fail with ErrNotHeld unless the lease is still held with its epoch. Until the transaction ends
// nobody else can take it.
func (tx *Tx) Fence(l Lease) error {
	n, err := tx.exec(`UPDATE leases SET epoch = epoch WHERE name = $1 AND node_id = $2 AND epoch = $3 AND expires_ts > 0`, l.Name, l.Node, l.Epoch)
	if err == nil && n == 0 {
		err = fmt.Errorf("%s: %w", l.Name, ErrNotHeld)
	}
	return err
}
