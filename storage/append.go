package storage

import (
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/go-json-experiment/json"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage/statemap"
)

// ErrConflict is returned by DB.Append when the room has moved on from the head that the events were built on.
var ErrConflict = errors.New("storage: the room has a newer head")

// ErrDuplicate is wrapped by the error of DB.Append when an event or transaction ID is stored already.
var ErrDuplicate = errors.New("storage: already stored")

// Room is what a node must know to append to a room: its name inside storage and its head.
type Room struct {
	ID      matrix.RoomID
	Version *matrix.RoomVersion
	// Tenant is the tenant that created the room here.
	Tenant matrix.ServerName
	num    int64
	Head   Head
}

// Head is the end of a room's graph as this deployment sees it.
type Head struct {
	// Name identifies the head: it changes with every append. Empty before the room exists.
	Name string
	// Extremities are the events that nothing refers to yet.
	Extremities []matrix.EventID
	Depth       int64
	// StateRoot is the current state.
	StateRoot statemap.Hash
	// LastPos is the position of the newest event that clients can see, StatePos of the newest change of state.
	LastPos, StatePos int64
}

// NewEvent is an event on its way in.
type NewEvent struct {
	Event *event.Event
	Flags Flags
	// AuthRank is 1 + the greatest rank of the auth events, 0 without any; it is kept for state events only.
	AuthRank  int64
	StateRoot statemap.Hash
	Replaces  matrix.EventID
	DeviceID  matrix.DeviceID
	// TxnScope and TxnID make a client's request idempotent; both empty for none. Scope is the endpoint's path without
	// the transaction ID.
	TxnScope, TxnID string
	DecisionID      string
	// Promoted marks an event that is stored as an outlier and gets its place now.
	Promoted bool
	// Missing are events that it follows and that are not stored. Seen is an event of the head that follows them by way of this one; empty
	// where there is none, or it is this one.
	Missing []matrix.EventID
	Seen    matrix.EventID
	// Ahead is how many positions before the event are left to what is missing, so that it gets its place when it comes: a hole.
	Ahead int64
}

// Redaction takes the content of a stored event away.
type Redaction struct {
	Target, By matrix.EventID
	JSON       []byte // the redacted form of the target
}

// Append is what enters one room in one go: all of it is stored or nothing.
type Append struct {
	// Room is the room with the head that the events were built on; a head without a name makes the room.
	Room   *Room
	Events []NewEvent
	// Head is the new head; LastPos and StatePos are filled in.
	Head Head
	// Nodes are the new nodes of the state tree.
	Nodes []statemap.Node
	// State are the changes of the current state, in order; an empty ID removes an entry. A changed entry whose event is not
	// among Events names an event that is stored already.
	State      []statemap.Change
	Redactions []Redaction
	// Also runs in the same transaction after everything else; it may run again.
	Also func(*Tx) error
	// Rebase, where it is set, makes Events and Head anew on a head that another node has moved the room to without a change of state: so
	// nodes that write into one room are not in each other's way. It runs inside the transaction, perhaps several times.
	Rebase func(Head) error

	// Hole is the hole that backfilled events belong to. Those for which there is no room in it, or with NoHole, come before everything else.
	Hole Hole
	// Patient is set where it does not matter when it is written, within some tens of milliseconds, where no other node writes: see queue.go.
	Patient bool

	// Results, set when Append returns without error.
	Stored []*Event
	num    int64
}

// alone tells whether state changes without an event that has a position: then that takes a position of its own, by which readers tell that it is new.
func (a *Append) alone() bool {
	return len(a.State) > 0 && !slices.ContainsFunc(a.Events, func(n NewEvent) bool { return n.Flags&(Outlier|Backfilled) == 0 })
}

// eventTypes are the column types of insertEventsSQL, in its order.
func eventTypes() []string {
	return []string{"BIGINT", "TEXT", "BIGINT", "TEXT", "TEXT", "TEXT", "BIGINT", "BIGINT", "BIGINT", "BIGINT", "BIGINT", "BYTEA", "TEXT",
		"TEXT", "TEXT", "TEXT", "BYTEA", "BYTEA"}
}

const (
	insertEventsSQL = `INSERT INTO events (pos, event_id, room_num, type, state_key, sender, depth, origin_server_ts, received_ts, flags,
		auth_rank, state_root, replaces, device_id, txn_id, decision_id, json, signatures)`
	upsertRoomsSQL = `INSERT INTO rooms (room_num, room_id, version, tenant, head, extremities, depth, state_root, last_pos, state_pos)`
	// The comparison rides in the tail: the expected old head is the row's tenant-independent key, see roomRow.
	upsertRoomsTail = `ON CONFLICT (room_num) DO UPDATE SET head = excluded.head, extremities = excluded.extremities, depth = excluded.depth,
		state_root = excluded.state_root,
		last_pos = CASE WHEN excluded.last_pos > rooms.last_pos THEN excluded.last_pos ELSE rooms.last_pos END,
		state_pos = CASE WHEN excluded.state_pos > rooms.state_pos THEN excluded.state_pos ELSE rooms.state_pos END
		WHERE rooms.head = excluded.tenant RETURNING room_num`
	insertTxnsSQL = `INSERT INTO client_txns (user_id, device_id, scope, txn_id, result, created_ts)`
)

// appendAll stores the appends of one batch. Statements per batch, however many events: positions, rooms, transaction IDs,
// events; and where state changes: nodes, auth edges, current state, memberships. On PostgreSQL the former are one, and the latter.
// moved are the heads of rooms that other nodes have written into.
func (tx *Tx) appendAll(list []*Append, moved map[int64]Head) error {
	var forward, back int64
	b := &appendBatch{tx: tx, now: tx.nowMS(), holes: map[*Append]int64{}}
	for _, a := range list {
		if err := b.findHole(a); err != nil {
			return err
		}
		for i := range a.Events {
			switch {
			case a.Events[i].Flags&(Outlier|Backfilled) == 0:
				forward += 1 + a.Events[i].Ahead
			case a.Events[i].Flags&Outlier != 0 || b.holes[a] == 0:
				back++
			}
		}
		if a.alone() {
			forward++
		}
	}
	if err := rebase(list, moved); err != nil {
		return err
	}
	var last, lastBack int64
	if tx.turn != nil {
		last, lastBack, b.counter = tx.reserve(forward, back)
	} else {
		var err error
		if last, lastBack, err = tx.raise(forward, back); err != nil {
			return err
		}
	}
	b.next, b.nextBack = last-forward+1, -(lastBack-back)-1
	for _, a := range list {
		if err := b.add(a); err != nil {
			return err
		}
	}
	return b.flush(list)
}

// appendBatch gathers the rows of one batch.
type appendBatch struct {
	tx             *Tx
	now            int64
	next, nextBack int64
	holes          map[*Append]int64 // where the events of an append go that belong into a hole: from there down
	missing        [][]any
	counter        insertion // raises the position, where it was not raised yet
	rooms          []*Append // the last append of each room, the first one's expected head in expect
	expect         map[matrix.RoomID]string
	stored         map[matrix.EventID]*Event
	promoted       []matrix.EventID
	events         [][]any
	txns           [][]any
	auth           [][]any
	nodes          map[statemap.Hash][]byte
	state          [][]any
	members        map[[2]string][]any
	unset          []any
	entries        []Entry
}

func (b *appendBatch) add(a *Append) error {
	if b.expect == nil {
		b.expect, b.nodes, b.members = map[matrix.RoomID]string{}, map[statemap.Hash][]byte{}, map[[2]string][]any{}
		b.stored = map[matrix.EventID]*Event{}
	}
	a.Stored = a.Stored[:0]
	a.Head.LastPos, a.Head.StatePos = a.Room.Head.LastPos, a.Room.Head.StatePos
	prior := -1
	for i := range b.rooms {
		if b.rooms[i].Room.ID == a.Room.ID {
			prior = i
		}
	}
	switch {
	case prior >= 0 && b.rooms[prior].Head.Name != a.Room.Head.Name:
		return &conflictError{a.Room.ID}
	case prior >= 0:
		p := b.rooms[prior]
		a.num, a.Head.LastPos, a.Head.StatePos = p.num, max(a.Head.LastPos, p.Head.LastPos), max(a.Head.StatePos, p.Head.StatePos)
	case a.Room.num != 0:
		a.num = a.Room.num
	default:
		a.num = b.next // a room is named after the position of its first event
	}
	for i := range a.Events {
		b.event(a, &a.Events[i])
	}
	for _, n := range a.Nodes {
		b.nodes[n.Hash] = n.Data
	}
	if a.alone() {
		b.next++
	}
	if err := b.changes(a); err != nil {
		return err
	}
	if prior >= 0 {
		b.rooms[prior] = a
		return nil
	}
	b.expect[a.Room.ID] = a.Room.Head.Name
	b.rooms = append(b.rooms, a)
	return nil
}

func (b *appendBatch) event(a *Append, n *NewEvent) {
	e := n.Event
	se := &Event{Event: e, Flags: n.Flags, StateRoot: n.StateRoot, Replaces: n.Replaces, DeviceID: n.DeviceID, TxnID: n.TxnID,
		DecisionID: n.DecisionID, ReceivedTS: b.now, AuthRank: n.AuthRank}
	floor := NoHole
	switch {
	case n.Flags&(Outlier|Backfilled) == Backfilled && b.holes[a] != 0:
		se.Pos, floor = b.holes[a], a.Hole
		b.holes[a]--
	case n.Flags&(Outlier|Backfilled) != 0:
		se.Pos = b.nextBack
		b.nextBack--
	default:
		if n.Ahead > 0 {
			floor = Hole(b.next)
		}
		b.next += n.Ahead
		se.Pos = b.next
		b.next++
		if !n.Flags.Hidden() {
			a.Head.LastPos = se.Pos
		}
		b.entries = append(b.entries, Entry{Pos: se.Pos, Kind: KindEvent, Event: se, RoomID: a.Room.ID})
	}
	a.Stored = append(a.Stored, se)
	b.stored[e.ID] = se
	for _, p := range n.Missing {
		b.missing = append(b.missing, []any{string(p), string(e.ID), a.num, int64(floor)})
		if n.Seen != "" && n.Seen != e.ID {
			b.missing = append(b.missing, []any{string(p), string(n.Seen), a.num, int64(floor)})
		}
	}
	if n.Promoted {
		b.promoted = append(b.promoted, e.ID)
	}
	var stateKey, rank any
	if e.StateKey != nil {
		stateKey, rank = dbText(*e.StateKey), n.AuthRank
		if n.Flags&Rejected == 0 { // what is rejected authorises nothing
			for _, id := range e.AuthEvents {
				b.auth = append(b.auth, []any{string(e.ID), string(id)})
			}
		}
	}
	b.events = append(b.events, []any{se.Pos, string(e.ID), a.num, dbText(e.Type), stateKey, string(e.Sender), e.Depth, e.OriginServerTS, b.now,
		int64(n.Flags), rank, bytesOrNil(n.StateRoot[:], n.StateRoot == statemap.Hash{}), textOrNil(string(n.Replaces)), textOrNil(string(n.DeviceID)),
		textOrNil(dbText(n.TxnID)), textOrNil(n.DecisionID), e.JSON, bytesOrNil(e.Signatures, len(e.Signatures) == 0)})
	if n.TxnScope != "" {
		b.txns = append(b.txns, []any{string(e.Sender), string(n.DeviceID), dbText(n.TxnScope), dbText(n.TxnID), string(e.ID), b.now})
	}
}

func textOrNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func bytesOrNil(b []byte, isNil bool) any {
	if isNil {
		return nil
	}
	return b
}

// changes turns the changes of current state into rows. Only the last change of a key counts.
func (b *appendBatch) changes(a *Append) error {
	last := map[event.StateKey]matrix.EventID{}
	for _, c := range a.State {
		last[c.Key] = c.ID
	}
	var before []matrix.EventID // those that are stored already
	for _, id := range last {
		if id != "" && b.stored[id] == nil {
			before = append(before, id)
		}
	}
	known, err := b.tx.LoadEvents(before)
	if err != nil {
		return fmt.Errorf("state of %s: %w", a.Room.ID, err)
	}
	for key, id := range last {
		pos, rank, ev := int64(0), int64(0), (*event.Event)(nil)
		if se := b.stored[id]; se != nil {
			pos, rank, ev = se.Pos, se.AuthRank, se.Event
			if pos < 0 { // an outlier is current from the event on that made it so
				pos = b.next - 1
			}
		}
		a.Head.StatePos = max(a.Head.StatePos, b.next-1)
		if id == "" {
			b.unset = append(b.unset, a.num, key)
			b.state = slices.DeleteFunc(b.state, func(r []any) bool { // what an append before it has set
				return r[0] == a.num && r[1] == dbText(key.Type) && r[2] == dbText(key.Key)
			})
			if key.Type == "m.room.member" {
				delete(b.members, [2]string{string(a.Room.ID), key.Key})
			}
			continue
		}
		if ev == nil {
			stored := known[id]
			if stored == nil {
				return fmt.Errorf("state of %s names %s: %w", a.Room.ID, id, ErrNotFound)
			}
			pos, rank, ev = b.next-1, stored.AuthRank, stored.Event
		}
		if key.Type == "m.room.member" {
			b.members[[2]string{string(a.Room.ID), key.Key}] = []any{a.num, dbText(key.Key), event.Membership(ev), string(ev.Sender), string(id), rank, pos, int64(0)}
		}
		b.state = append(b.state, []any{a.num, dbText(key.Type), dbText(key.Key), string(id), rank, pos})
	}
	return nil
}

func (b *appendBatch) flush(list []*Append) error {
	tx := b.tx
	if len(b.promoted) > 0 {
		if _, err := tx.exec(`DELETE FROM events WHERE event_id SET($1) AND flags & 8 <> 0`, setOf(tx, b.promoted)); err != nil {
			return err
		}
	}
	if err := b.flushEvents(b.onlyEvents(list)); err != nil {
		return err
	}
	if err := b.flushState(); err != nil {
		return err
	}
	if err := tx.addMissing(b.missing); err != nil {
		return err
	}
	if err := b.indexAuth(list); err != nil {
		return err
	}
	for _, a := range list {
		for _, r := range a.Redactions {
			if err := tx.redact(r); err != nil {
				return err
			}
		}
		if a.Also != nil {
			if err := guard(tx, a.Also); err != nil {
				return err
			}
		}
	}
	tx.entries = append(b.entries, tx.entries...)
	sort.SliceStable(tx.entries, func(i, j int) bool { return tx.entries[i].Pos < tx.entries[j].Pos })
	tx.db.stats.events.Add(int64(len(b.events)))
	return nil
}

// onlyEvents tells whether nothing is written after the events: so it is with messages.
func (b *appendBatch) onlyEvents(list []*Append) bool {
	more := len(b.nodes) + len(b.auth) + len(b.state) + len(b.members) + len(b.unset) + len(b.missing)
	return more == 0 && len(b.events) <= maxBulk && !slices.ContainsFunc(list, func(a *Append) bool {
		return a.Also != nil || len(a.Redactions) > 0 || slices.ContainsFunc(a.Events, func(n NewEvent) bool { return n.Event.StateKey != nil })
	})
}

// flushEvents stores the events and the transaction IDs, and moves the heads of the rooms, each only if it still is the expected one. Where
// nothing else is written, it commits, too, if the transaction is such.
func (b *appendBatch) flushEvents(last bool) error {
	rooms, err := b.roomRows()
	if err != nil {
		return err
	}
	moved, txns := map[int64]bool{}, 0
	list := []insertion{b.counter,
		{upsertRoomsSQL, []string{"BIGINT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "BIGINT", "BYTEA", "BIGINT", "BIGINT"}, upsertRoomsTail, rooms,
			func(num int64) { moved[num] = true }},
		{insertTxnsSQL, []string{"TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "BIGINT"}, `ON CONFLICT DO NOTHING RETURNING created_ts`, b.txns,
			func(int64) { txns++ }},
		{insertEventsSQL, eventTypes(), "", b.events, nil}}
	if last && b.tx.final {
		err = b.tx.finish(list)
	} else {
		err = b.tx.together(list...)
	}
	switch {
	case b.tx.committed:
		b.counter.back(0)
		return nil
	case errors.Is(err, errGuard):
		return err
	case b.tx.turn != nil && (err == nil || b.tx.db.d.isTaken(err)): // the counter was not where it was at the turn
		return errTurn
	case err != nil && b.tx.db.d.isUnique(err):
		return fmt.Errorf("%w: %w", ErrDuplicate, err)
	case err != nil:
		return err
	}
	for _, a := range b.rooms {
		if !moved[a.num] {
			return &conflictError{a.Room.ID}
		}
	}
	if txns != len(b.txns) {
		return fmt.Errorf("%w: transaction ID", ErrDuplicate)
	}
	return nil
}

// roomRows are the rooms with their new heads. The expected head travels in the tenant column of the proposed row, which an update
// leaves alone; for a new room it is the tenant itself.
func (b *appendBatch) roomRows() ([][]any, error) {
	rows := make([][]any, 0, len(b.rooms))
	sort.Slice(b.rooms, func(i, j int) bool { return b.rooms[i].num < b.rooms[j].num })
	for _, a := range b.rooms {
		ext, err := json.Marshal(a.Head.Extremities)
		if err != nil {
			return nil, err
		}
		expect := b.expect[a.Room.ID]
		if expect == "" {
			expect = string(a.Room.Tenant)
		}
		rows = append(rows, []any{a.num, string(a.Room.ID), a.Room.Version.ID, expect, a.Head.Name, string(ext), a.Head.Depth,
			a.Head.StateRoot[:], a.Head.LastPos, a.Head.StatePos})
	}
	return rows, nil
}

func (b *appendBatch) flushState() error {
	tx := b.tx
	var nodes [][]any
	for h, d := range b.nodes {
		nodes = append(nodes, []any{append([]byte(nil), h[:]...), d})
	}
	sort.Slice(nodes, func(i, j int) bool { return string(nodes[i][0].([]byte)) < string(nodes[j][0].([]byte)) })
	if err := b.flushUnset(); err != nil {
		return err
	}
	var members [][]any
	for _, m := range b.members {
		members = append(members, m)
	}
	return tx.together(
		insertion{`INSERT INTO state_nodes (hash, data)`, []string{"BYTEA", "BYTEA"}, `ON CONFLICT DO NOTHING`, nodes, nil},
		insertion{`INSERT INTO event_auth (event_id, auth_id)`, []string{"TEXT", "TEXT"}, `ON CONFLICT DO NOTHING`, b.auth, nil},
		insertion{`INSERT INTO current_state (room_num, type, state_key, event_id, auth_rank, pos)`,
			[]string{"BIGINT", "TEXT", "TEXT", "TEXT", "BIGINT", "BIGINT"},
			`ON CONFLICT (room_num, type, state_key) DO UPDATE SET event_id = excluded.event_id, auth_rank = excluded.auth_rank,
			pos = excluded.pos`, lastRows(b.state, func(r []any) string { return fmt.Sprint(r[0], "\x00", r[1], "\x00", r[2]) }), nil},
		insertion{`INSERT INTO memberships (room_num, user_id, membership, sender, event_id, auth_rank, pos, forgotten)`,
			[]string{"BIGINT", "TEXT", "TEXT", "TEXT", "TEXT", "BIGINT", "BIGINT", "BIGINT"},
			`ON CONFLICT (room_num, user_id) DO UPDATE SET membership = excluded.membership, sender = excluded.sender, event_id = excluded.event_id,
			auth_rank = excluded.auth_rank, pos = excluded.pos, forgotten = excluded.forgotten`,
			lastRows(members, func(r []any) string { return fmt.Sprint(r[0], "\x00", r[1]) }), nil})
}

func (b *appendBatch) flushUnset() error {
	for i := 0; i < len(b.unset); i += 2 {
		key := b.unset[i+1].(event.StateKey)
		if _, err := b.tx.exec(`DELETE FROM current_state WHERE room_num = $1 AND type = $2 AND state_key = $3`, b.unset[i], dbText(key.Type),
			dbText(key.Key)); err != nil {
			return err
		}
		if key.Type == "m.room.member" {
			if _, err := b.tx.exec(`DELETE FROM memberships WHERE room_num = $1 AND user_id = $2`, b.unset[i], dbText(key.Key)); err != nil {
				return err
			}
		}
	}
	return nil
}

// lastRows keeps the last row of each key and sorts by key, so that concurrent writers take row locks in one order.
func lastRows(rows [][]any, key func([]any) string) [][]any {
	last := map[string][]any{}
	for _, r := range rows {
		last[key(r)] = r
	}
	keys := make([]string, 0, len(last))
	for k := range last {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	out := make([][]any, len(keys))
	for i, k := range keys {
		out[i] = last[k]
	}
	return out
}

func (tx *Tx) redact(r Redaction) error {
	_, err := tx.exec(`UPDATE events SET json = $2, redacted_by = $3 WHERE event_id = $1`, string(r.Target), r.JSON, string(r.By))
	return err
}

// conflictError names the room whose head had moved.
type conflictError struct{ room matrix.RoomID }

func (e *conflictError) Error() string        { return "room " + string(e.room) + " has a newer head" }
func (e *conflictError) Is(target error) bool { return target == ErrConflict }
