package storage

import (
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"

	"github.com/go-json-experiment/json"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage/statemap"
)

const (
	eventNameSQL = `e.pos, e.event_id`
	eventRestSQL = `e.flags, e.auth_rank, e.state_root, e.replaces, e.redacted_by, e.device_id, e.txn_id, e.decision_id, e.received_ts, e.json,
		e.signatures`
	// selectEventSQL yields what scanEvent reads.
	selectEventSQL = `SELECT ` + eventNameSQL + `, r.version, ` + eventRestSQL + ` FROM events e JOIN rooms r ON r.room_num = e.room_num `
)

// visibleSQL leaves out what clients never see in a timeline: flags 1, 2, 4 and 8.
const visibleSQL = ` AND e.flags & 15 = 0 `

// scanEvent reads one row; more are where the columns after those of an event go.
func (tx *Tx) scanEvent(r interface{ Scan(...any) error }, more ...any) (*Event, error) {
	var e Event
	var id, version string
	var root, body, sigs []byte
	var rank sql.NullInt64
	var replaces, redactedBy, device, txn, decision sql.NullString
	columns := [...]any{&e.Pos, &id, &version, &e.Flags, &rank, &root, &replaces, &redactedBy, &device, &txn, &decision, &e.ReceivedTS, &body, &sigs}
	if err := r.Scan(append(columns[:], more...)...); err != nil {
		return nil, err
	}
	copy(e.StateRoot[:], root)
	e.AuthRank = rank.Int64
	e.Replaces, e.RedactedBy = matrix.EventID(replaces.String), matrix.EventID(redactedBy.String)
	e.DeviceID, e.TxnID, e.DecisionID = matrix.DeviceID(device.String), goText(txn.String), decision.String
	v := tx.db.versions[version]
	if v == nil {
		return nil, fmt.Errorf("event %s is of unknown room version %q", id, version)
	}
	ev, err := event.ParseStored(v, body, matrix.EventID(id), sigs)
	if err != nil {
		return nil, fmt.Errorf("stored event %s: %w", id, err)
	}
	if !event.Intact(ev) {
		return nil, fmt.Errorf("stored event %s is not what its hashes say", id)
	}
	e.Event = ev
	return &e, nil
}

// events runs a query that selects events. A row that cannot be read is skipped and logged: one damaged event must not take a
// room or a user's sync down with it.
func (tx *Tx) events(q string, args ...any) ([]*Event, error) { return tx.eventsAnd(nil, q, args...) }

// eventsAnd does the same for a query that has more columns; see scanEvent.
func (tx *Tx) eventsAnd(more []any, q string, args ...any) ([]*Event, error) {
	var out []*Event
	err := tx.query(func(r *sql.Rows) error {
		e, err := tx.scanEvent(r, more...)
		if err != nil {
			tx.db.log.WithError(err).Error("skipped a damaged event")
			return nil
		}
		out = append(out, e)
		return nil
	}, q, args...)
	return out, err
}

// LoadEvent returns one event, or ErrNotFound.
func (tx *Tx) LoadEvent(id matrix.EventID) (*Event, error) {
	list, err := tx.events(selectEventSQL+`WHERE e.event_id = $1`, string(id))
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// LoadEvents returns those of the named events that are stored.
func (tx *Tx) LoadEvents(ids []matrix.EventID) (map[matrix.EventID]*Event, error) {
	out := make(map[matrix.EventID]*Event, len(ids))
	if len(ids) == 0 {
		return out, nil
	}
	list, err := tx.events(selectEventSQL+`WHERE e.event_id SET($1)`, setOf(tx, ids))
	for _, e := range list {
		out[e.ID] = e
	}
	return out, err
}

// AuthNode is one event of the auth graph.
type AuthNode struct {
	AuthEvents []matrix.EventID
	Rank       int64
}

// LoadAuthNodes returns those of the named state events that are stored, as nodes of the auth graph.
func (tx *Tx) LoadAuthNodes(ids []matrix.EventID) (map[matrix.EventID]AuthNode, error) {
	out := map[matrix.EventID]AuthNode{}
	err := tx.query(func(r *sql.Rows) error {
		var id string
		var auth sql.NullString
		var rank int64
		if err := r.Scan(&id, &auth, &rank); err != nil {
			return err
		}
		n := out[matrix.EventID(id)]
		n.Rank = rank
		if auth.Valid {
			n.AuthEvents = append(n.AuthEvents, matrix.EventID(auth.String))
		}
		out[matrix.EventID(id)] = n
		return nil
	}, `SELECT e.event_id, a.auth_id, COALESCE(e.auth_rank, 0) FROM events e LEFT JOIN event_auth a ON a.event_id = e.event_id
		WHERE e.event_id SET($1)`, setOf(tx, ids))
	return out, err
}

// Direction of a page of history.
type Direction bool

// The directions.
const (
	Backward Direction = false
	Forward  Direction = true
)

// LoadPage returns up to limit visible events of a room on one side of a position: Backward those at or before it, newest
// first; Forward those after it, oldest first.
func (tx *Tx) LoadPage(room matrix.RoomID, from int64, dir Direction, limit int) ([]*Event, error) {
	if dir == Forward {
		return tx.events(selectEventSQL+`WHERE r.room_id = $1 AND e.pos > $2`+visibleSQL+`ORDER BY e.pos LIMIT $3`, string(room), from, limit)
	}
	return tx.events(selectEventSQL+`WHERE r.room_id = $1 AND e.pos <= $2`+visibleSQL+`ORDER BY e.pos DESC LIMIT $3`, string(room), from, limit)
}

// LoadGraph returns up to limit events of a room's graph at or before a position, newest first, shown to clients or not: all but outliers (flag 8).
func (tx *Tx) LoadGraph(room matrix.RoomID, upto int64, limit int) ([]*Event, error) {
	return tx.events(selectEventSQL+`WHERE r.room_id = $1 AND e.pos <= $2 AND e.flags & 8 = 0 ORDER BY e.pos DESC LIMIT $3`, string(room), upto, limit)
}

// StoreStateRoots replaces the states that are kept after events.
func (tx *Tx) StoreStateRoots(roots map[matrix.EventID]statemap.Hash) error {
	same := map[statemap.Hash][]matrix.EventID{}
	for id, root := range roots {
		same[root] = append(same[root], id)
	}
	for root, ids := range same { // mostly one or two
		if _, err := tx.exec(`UPDATE events SET state_root = $1 WHERE event_id SET($2)`, root[:], setOf(tx, ids)); err != nil {
			return err
		}
	}
	return nil
}

// LoadMemberships returns the first visible membership events of a user in a room after one position and up to another, oldest first.
func (tx *Tx) LoadMemberships(room matrix.RoomID, user matrix.UserID, after, upto int64, limit int) ([]*Event, error) {
	return tx.events(selectEventSQL+`WHERE r.room_id = $1 AND e.pos > $3 AND e.pos <= $4 AND e.type = 'm.room.member' AND e.state_key = $2`+visibleSQL+`
		ORDER BY e.pos LIMIT $5`, string(room), dbText(string(user)), after, upto, limit)
}

// LoadTimelines returns, for each of the rooms, the newest visible events after since and up to upto, oldest first: at most limit+1 a room,
// so that the caller can see whether there were more.
func (tx *Tx) LoadTimelines(rooms []matrix.RoomID, since, upto int64, limit int) (map[matrix.RoomID][]*Event, error) {
	out := map[matrix.RoomID][]*Event{}
	if len(rooms) == 0 {
		return out, nil
	}
	list, err := tx.events(timelinesSQL(), setOf(tx, rooms), since, upto, limit+1)
	for _, e := range list {
		out[e.RoomID] = append(out[e.RoomID], e)
	}
	return out, err
}

// LoadStateChanges returns the state events that entered the rooms' timelines after since and up to upto, oldest first.
func (tx *Tx) LoadStateChanges(rooms []matrix.RoomID, since, upto int64) (map[matrix.RoomID][]*Event, error) {
	out := map[matrix.RoomID][]*Event{}
	if len(rooms) == 0 {
		return out, nil
	}
	list, err := tx.events(selectEventSQL+`JOIN current_state s ON s.room_num = e.room_num AND s.event_id = e.event_id
		WHERE r.room_id SET($1) AND s.pos > $2 AND s.pos <= $3 ORDER BY s.pos`, setOf(tx, rooms), since, upto)
	for _, e := range list {
		out[e.RoomID] = append(out[e.RoomID], e)
	}
	return out, err
}

// LoadNodes is the statemap.Loader of the state tree.
func (tx *Tx) LoadNodes(hashes []statemap.Hash) (map[statemap.Hash][]byte, error) {
	out := make(map[statemap.Hash][]byte, len(hashes))
	keys := make([][]byte, len(hashes))
	for i := range hashes {
		keys[i] = hashes[i][:]
	}
	err := tx.query(func(r *sql.Rows) error {
		var h, d []byte
		if err := r.Scan(&h, &d); err != nil {
			return err
		}
		if sha256.Sum256(d) != [sha256.Size]byte(h) {
			tx.db.log.WithField("hash", hex.EncodeToString(h)).Error("skipped a damaged node of the state tree")
			return nil
		}
		out[statemap.Hash(h)] = d
		return nil
	}, `SELECT hash, data FROM state_nodes WHERE hash BLOBSET($1)`, tx.set(keys))
	return out, err
}

// FindTxn returns the event or result that a device's earlier request of the same scope and transaction ID produced.
func (tx *Tx) FindTxn(user matrix.UserID, device matrix.DeviceID, scope, txn string) (result string, ok bool, err error) {
	err = tx.row(`SELECT result FROM client_txns WHERE user_id = $1 AND device_id = $2 AND scope = $3 AND txn_id = $4`,
		[]any{string(user), string(device), dbText(scope), dbText(txn)}, &result)
	if err == ErrNotFound {
		return "", false, nil
	}
	return result, err == nil, err
}

// PutTxn remembers the result of a request that writes no event. It reports false when one is stored already.
func (tx *Tx) PutTxn(user matrix.UserID, device matrix.DeviceID, scope, txn, result string) (bool, error) {
	n, err := tx.exec(insertTxnsSQL+` VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`, string(user), string(device), dbText(scope), dbText(txn),
		result, tx.nowMS())
	return n == 1, err
}

// PruneTxns forgets transaction IDs from before a time in ms.
func (tx *Tx) PruneTxns(before int64) (int64, error) {
	return tx.exec(`DELETE FROM client_txns WHERE created_ts < $1`, before)
}

// SetSignatures stores the signatures of events that were stored unsigned.
func (tx *Tx) SetSignatures(sigs map[matrix.EventID][]byte) error {
	for id, s := range sigs {
		if _, err := tx.exec(`UPDATE events SET signatures = $2 WHERE event_id = $1`, string(id), s); err != nil {
			return err
		}
	}
	return nil
}

// SetFlags changes the flags of an event.
func (tx *Tx) SetFlags(id matrix.EventID, set, clear Flags) error {
	_, err := tx.exec(`UPDATE events SET flags = (flags | CAST($2 AS BIGINT)) & ~CAST($3 AS BIGINT) WHERE event_id = $1`, string(id), int64(set), int64(clear))
	return err
}

// AddPendingRedaction remembers a redaction whose target is not known yet.
func (tx *Tx) AddPendingRedaction(target, redaction matrix.EventID) error {
	_, err := tx.exec(`INSERT INTO pending_redactions (target_id, redaction_id) VALUES ($1, $2) ON CONFLICT DO NOTHING`, string(target), string(redaction))
	return err
}

// FindPendingRedactions returns the redactions that wait for any of the events, by target.
func (tx *Tx) FindPendingRedactions(targets []matrix.EventID) (map[matrix.EventID][]matrix.EventID, error) {
	return tx.pairs(`SELECT target_id, redaction_id FROM pending_redactions WHERE target_id SET($1)`, targets)
}

// FindChildren returns which of the events were named as parents before they were stored.
func (tx *Tx) FindChildren(parents []matrix.EventID) (map[matrix.EventID][]matrix.EventID, error) {
	return tx.pairs(`SELECT event_id, child_id FROM missing_parents WHERE event_id SET($1)`, parents)
}

func (tx *Tx) pairs(q string, ids []matrix.EventID) (map[matrix.EventID][]matrix.EventID, error) {
	out := map[matrix.EventID][]matrix.EventID{}
	err := tx.query(func(r *sql.Rows) error {
		var a, b string
		if err := r.Scan(&a, &b); err != nil {
			return err
		}
		out[matrix.EventID(a)] = append(out[matrix.EventID(a)], matrix.EventID(b))
		return nil
	}, q, setOf(tx, ids))
	return out, err
}

func parseExtremities(s string) ([]matrix.EventID, error) {
	var out []matrix.EventID
	return out, json.Unmarshal([]byte(s), &out)
}

// LoadUnread returns, for each room, the newest visible events after what a user has read there (by an unthreaded receipt), has sent there, or since
// the user joined, oldest first and at most limit a room.
func (tx *Tx) LoadUnread(rooms []matrix.RoomID, user matrix.UserID, limit int) (map[matrix.RoomID][]*Event, error) {
	return tx.byRoom(tx.events(unreadSQL(), setOf(tx, rooms), dbText(string(user)), limit))
}

// newestSQL is the position of the newest visible event of room r that does not belong to the newest limit ones any more. It is to be
// asked once a room, from a materialised part of a query, and not for each event.
func newestSQL(limit, and string) string {
	return `COALESCE((SELECT x.pos FROM events x WHERE x.room_num = r.room_num` + and + ` AND x.flags & 15 = 0
		ORDER BY x.pos DESC LIMIT 1 OFFSET ` + limit + `), -9223372036854775807)`
}

func timelinesSQL() string {
	return `WITH low AS MATERIALIZED (SELECT r.room_num, ` + newestSQL("$4", " AND x.pos <= $3") + ` AS pos FROM rooms r WHERE r.room_id SET($1)) ` +
		selectEventSQL + `JOIN low ON low.room_num = e.room_num WHERE e.pos > $2 AND e.pos <= $3 AND e.pos > low.pos` + visibleSQL + `ORDER BY e.pos`
}

func unreadSQL() string {
	return `WITH marks AS MATERIALIZED (SELECT m.room_num, m.pos AS joined,
		COALESCE((SELECT MAX(p.event_pos) FROM receipts p WHERE p.room_num = r.room_num AND p.user_id = $2 AND p.thread_id = ''
			AND p.receipt_type IN ('m.read', 'm.read.private')), 0) AS seen, ` + newestSQL("$3", "") + ` AS oldest
		FROM rooms r JOIN memberships m ON m.room_num = r.room_num AND m.user_id = $2 WHERE r.room_id SET($1)),
	low AS MATERIALIZED (SELECT room_num, CASE WHEN joined >= seen AND joined >= oldest THEN joined WHEN seen >= oldest THEN seen
		ELSE oldest END AS pos FROM marks) ` +
		selectEventSQL + `JOIN low ON low.room_num = e.room_num WHERE e.pos > low.pos` + visibleSQL + `ORDER BY e.pos`
}
