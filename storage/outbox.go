package storage

import (
	"database/sql"
	"errors"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage/statemap"
)

// NoticeOutbox tells that an EDU was queued for another server. Ref: the tenant and the server, with a space between.
const NoticeOutbox = "outbox"

// maxEDU is the largest EDU that is queued, in bytes of its content.
const maxEDU = 65536

// Destination is how far a tenant is with telling another server what concerns it.
type Destination struct {
	Tenant, Name matrix.ServerName
	// Pos is the position up to which the server has everything.
	Pos int64
	// Sending is the last position of the transaction that is under way from Pos, 0 for none.
	Sending int64
	// Newest is true where that transaction has only the newest event of each room.
	Newest bool
	// Behind is true where more waits than is remembered: it has to be looked up from Pos.
	Behind bool
	// Failures counts those since the last success, RetryTS is when to try again, FailedTS when the first of them was.
	Failures, RetryTS, FailedTS int64
	LastError                   string
}

// QueuedEDU is an EDU that waits until another server has it.
type QueuedEDU struct {
	Pos       int64
	Type, Key string
	Content   []byte
}

// RoomServer is the time that a server has had users in a room.
type RoomServer struct {
	RoomID matrix.RoomID
	Server matrix.ServerName
	// Since and Until are the positions of the events by which the server came and went; Until is 0 while it is there.
	Since, Until int64
}

// Quarantined is an item that another server refused over and over.
type Quarantined struct {
	Tenant, Destination matrix.ServerName
	Pos                 int64
	// Item is the ID of an event or the type of an EDU.
	Item    string
	Status  int
	Message string
	// Content is that of an EDU, nil for an event.
	Content   []byte
	CreatedTS int64
}

// QueueEDU queues an EDU of a tenant for another server, which gets it once it can be reached. One with the same key (unless it is
// empty) and type replaces an earlier one that waits. What no server would take is refused here.
func (tx *Tx) QueueEDU(as, to matrix.ServerName, typ, key string, content []byte) error {
	switch {
	case typ == "" || len(typ) > 255:
		return matrix.InvalidParam("The type of an EDU has 1 to 255 bytes.")
	case len(content) > maxEDU:
		return matrix.Errorf(413, matrix.CodeTooLarge, "What is sent to another server may have at most %d bytes.", maxEDU)
	case !jsontext.Value(content).IsValid() || jsontext.Value(content).Kind() != '{':
		return matrix.BadJSON("The content of an EDU must be an object.")
	}
	if err := tx.Announce(NoticeOutbox, string(as)+" "+string(to)); err != nil {
		return err
	}
	if key != "" {
		if _, err := tx.exec(`DELETE FROM outbox_edus WHERE tenant = $1 AND destination = $2 AND edu_type = $3 AND edu_key = $4 AND edu_key <> ''`,
			string(as), string(to), dbText(typ), dbText(key)); err != nil {
			return err
		}
	}
	_, err := tx.exec(`INSERT INTO outbox_edus (pos, tenant, destination, edu_type, edu_key, content, created_ts) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		tx.last, string(as), string(to), dbText(typ), dbText(key), content, tx.nowMS())
	return err
}

// LoadQueuedEDUs returns the oldest EDUs that wait for a server after a position and up to another.
func (tx *Tx) LoadQueuedEDUs(as, to matrix.ServerName, after, upto int64, limit int) ([]QueuedEDU, error) {
	var out []QueuedEDU
	err := tx.query(func(r *sql.Rows) error {
		var e QueuedEDU
		var typ, key string
		if err := r.Scan(&e.Pos, &typ, &key, &e.Content); err != nil {
			return err
		}
		e.Type, e.Key = goText(typ), goText(key)
		if tx.readable(e.Content, e.Pos) {
			out = append(out, e)
		}
		return nil
	}, `SELECT pos, edu_type, edu_key, content FROM outbox_edus WHERE tenant = $1 AND destination = $2 AND pos > $3 AND pos <= $4 ORDER BY pos LIMIT $5`,
		string(as), string(to), after, upto, limit)
	return out, err
}

// DeleteQueuedEDUs forgets the EDUs for a server up to a position.
func (tx *Tx) DeleteQueuedEDUs(as, to matrix.ServerName, upto int64) error {
	_, err := tx.exec(`DELETE FROM outbox_edus WHERE tenant = $1 AND destination = $2 AND pos <= $3`, string(as), string(to), upto)
	return err
}

// PruneQueuedEDUs forgets EDUs from before a time in ms, which nobody came for.
func (tx *Tx) PruneQueuedEDUs(before int64) (int64, error) {
	return tx.exec(`DELETE FROM outbox_edus WHERE created_ts < $1`, before)
}

// LoadDestinations returns how far all tenants are with all servers.
func (tx *Tx) LoadDestinations() ([]Destination, error) {
	var out []Destination
	err := tx.query(func(r *sql.Rows) error {
		var d Destination
		var as, to, text string
		var newest, behind int64
		if err := r.Scan(&as, &to, &d.Pos, &d.Sending, &newest, &behind, &d.Failures, &d.RetryTS, &d.FailedTS, &text); err != nil {
			return err
		}
		d.Tenant, d.Name, d.Newest, d.Behind, d.LastError = matrix.ServerName(as), matrix.ServerName(to), newest != 0, behind != 0, goText(text)
		out = append(out, d)
		return nil
	}, `SELECT tenant, destination, pos, sending, newest, behind, failures, retry_ts, failed_ts, last_error FROM outbox_destinations
		ORDER BY tenant, destination`)
	return out, err
}

// PutDestinations stores how far tenants are with servers.
func (tx *Tx) PutDestinations(list []Destination) error {
	rows := make([][]any, len(list))
	for i, d := range list {
		rows[i] = []any{string(d.Tenant), string(d.Name), d.Pos, d.Sending, number(d.Newest), number(d.Behind), d.Failures, d.RetryTS, d.FailedTS,
			dbText(d.LastError)}
	}
	if len(rows) == 0 {
		return nil
	}
	return tx.bulk(`INSERT INTO outbox_destinations (tenant, destination, pos, sending, newest, behind, failures, retry_ts, failed_ts, last_error)`,
		[]string{"TEXT", "TEXT", "BIGINT", "BIGINT", "BIGINT", "BIGINT", "BIGINT", "BIGINT", "BIGINT", "TEXT"},
		`ON CONFLICT (tenant, destination) DO UPDATE SET pos = excluded.pos, sending = excluded.sending, newest = excluded.newest,
		behind = excluded.behind, failures = excluded.failures, retry_ts = excluded.retry_ts, failed_ts = excluded.failed_ts,
		last_error = excluded.last_error`, rows, nil)
}

// DeleteDestinations forgets servers that nothing is sent to any more.
func (tx *Tx) DeleteDestinations(list []Destination) error {
	for _, d := range list {
		if _, err := tx.exec(`DELETE FROM outbox_destinations WHERE tenant = $1 AND destination = $2`, string(d.Tenant), string(d.Name)); err != nil {
			return err
		}
	}
	return nil
}

func number(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// OutboxRoom is what sending the events of a room depends on.
type OutboxRoom struct {
	// Tenant is the tenant that made the room here.
	Tenant matrix.ServerName
	// Servers have users in the room, or had until after the position asked for. Known is true where any ever had.
	Servers []RoomServer
	Known   bool
}

// LoadOutboxRooms returns which servers are in rooms, or were at some position after the given one, as PutRoomServers was told.
func (tx *Tx) LoadOutboxRooms(rooms []matrix.RoomID, after int64) (map[matrix.RoomID]*OutboxRoom, error) {
	out := map[matrix.RoomID]*OutboxRoom{}
	err := tx.query(func(r *sql.Rows) error {
		var id, tenant string
		var server sql.NullString
		var since, until sql.NullInt64
		if err := r.Scan(&id, &tenant, &server, &since, &until); err != nil {
			return err
		}
		room := out[matrix.RoomID(id)]
		if room == nil {
			room = &OutboxRoom{Tenant: matrix.ServerName(tenant)}
			out[matrix.RoomID(id)] = room
		}
		room.Known = room.Known || server.Valid
		if server.Valid && (until.Int64 == 0 || until.Int64 > after) {
			room.Servers = append(room.Servers, RoomServer{matrix.RoomID(id), matrix.ServerName(server.String), since.Int64, until.Int64})
		}
		return nil
	}, `SELECT r.room_id, r.tenant, o.destination, o.since, o.until FROM rooms r LEFT JOIN outbox_rooms o ON o.room_num = r.room_num
		WHERE r.room_id SET($1) ORDER BY r.room_id, o.destination`, setOf(tx, rooms))
	return out, err
}

// PutRoomServers stores when servers came into rooms and went.
func (tx *Tx) PutRoomServers(list []RoomServer) error {
	for _, s := range list {
		if _, err := tx.exec(`INSERT INTO outbox_rooms (destination, room_num, since, until)
			SELECT CAST($2 AS TEXT), room_num, CAST($3 AS BIGINT), CAST($4 AS BIGINT) FROM rooms WHERE room_id = $1
			ON CONFLICT (destination, room_num) DO UPDATE SET since = excluded.since, until = excluded.until`,
			string(s.RoomID), string(s.Server), s.Since, s.Until); err != nil {
			return err
		}
	}
	return nil
}

// suffixSQL is a condition: the text in a column ends with a parameter.
func suffixSQL(column, param string) string {
	return `substr(` + column + `, length(` + column + `) - length(CAST(` + param + ` AS TEXT)) + 1) = CAST(` + param + ` AS TEXT)`
}

// LoadJoinedServers returns which servers have joined users in rooms now, and the position of the oldest of those memberships.
func (tx *Tx) LoadJoinedServers(rooms []matrix.RoomID) (map[matrix.RoomID]map[matrix.ServerName]int64, error) {
	out := make(map[matrix.RoomID]map[matrix.ServerName]int64, len(rooms))
	if len(rooms) == 0 {
		return out, nil
	}
	for _, id := range rooms {
		out[id] = map[matrix.ServerName]int64{}
	}
	err := tx.query(func(r *sql.Rows) error {
		var id, user string
		var pos int64
		if err := r.Scan(&id, &user, &pos); err != nil {
			return err
		}
		servers, server := out[matrix.RoomID(id)], matrix.UserID(goText(user)).Server()
		if first, ok := servers[server]; !ok || pos < first {
			servers[server] = pos
		}
		return nil
	}, `SELECT r.room_id, m.user_id, m.pos FROM memberships m JOIN rooms r ON r.room_num = m.room_num
		WHERE r.room_id SET($1) AND m.membership = 'join'`, setOf(tx, rooms))
	return out, err
}

// LoadSharingDestinations returns which other servers share a room with a user.
func (tx *Tx) LoadSharingDestinations(user matrix.UserID) ([]matrix.ServerName, error) {
	var out []matrix.ServerName
	err := tx.query(func(r *sql.Rows) error {
		var server string
		if err := r.Scan(&server); err != nil {
			return err
		}
		out = append(out, matrix.ServerName(server))
		return nil
	}, `SELECT DISTINCT o.destination FROM memberships m JOIN outbox_rooms o ON o.room_num = m.room_num AND o.until = 0
		WHERE m.user_id = $1 AND m.membership = 'join'`, dbText(string(user)))
	return out, err
}

// HasServerMember tells whether a server has a joined user in the state after an event.
func (tx *Tx) HasServerMember(room matrix.RoomID, server matrix.ServerName, pos int64, root statemap.Hash) (bool, error) {
	suffix := ":" + string(server)
	var n int64
	err := tx.row(`SELECT 1 FROM memberships m JOIN rooms r ON r.room_num = m.room_num
		WHERE r.room_id = $1 AND m.membership = 'join' AND m.pos <= $3 AND `+suffixSQL("m.user_id", "$2")+` LIMIT 1`, []any{string(room), suffix, pos}, &n)
	if err == nil || !errors.Is(err, ErrNotFound) {
		return err == nil, err
	}
	// Those who changed since may have been joined then.
	var keys []event.StateKey
	users, err := tx.userIDs(`SELECT m.user_id FROM memberships m JOIN rooms r ON r.room_num = m.room_num
		WHERE r.room_id = $1 AND m.pos > $3 AND `+suffixSQL("m.user_id", "$2"), string(room), suffix, pos)
	if err != nil || len(users) == 0 {
		return false, err
	}
	for _, u := range users {
		keys = append(keys, event.StateKey{Type: "m.room.member", Key: string(u)})
	}
	state, err := tx.LoadStateAt(root, keys)
	if err != nil {
		return false, err
	}
	for _, e := range state {
		if event.Membership(e.Event) == "join" {
			return true, nil
		}
	}
	return false, nil
}

// concernsSQL is the condition that an event concerns a server: $1 is the server, $2 and $3 the range of positions, $4 the tenant. The
// server was in the room; and the event is of a user of the tenant, or of a third server and the tenant has to send it on.
func concernsSQL() string {
	tenants := suffixSQL("e.sender", "(':' || CAST($4 AS TEXT))")
	return ` AND e.pos > $2 AND e.pos <= $3 AND e.pos >= o.since AND (o.until = 0 OR e.pos <= o.until) AND e.flags & 31 = 0 AND (` +
		`(e.flags & 32) = 0 AND ` + tenants + ` OR (e.flags & 32) <> 0 AND r.tenant = $4 AND NOT ` + tenants + ` AND NOT ` +
		suffixSQL("e.sender", "(':' || CAST($1 AS TEXT))") + `) `
}

// LoadOutboxEvents returns the events that concern a server after a position and up to another, oldest first.
func (tx *Tx) LoadOutboxEvents(as, to matrix.ServerName, after, upto int64, limit int) ([]*Event, error) {
	return tx.events(selectEventSQL+`JOIN outbox_rooms o ON o.room_num = e.room_num AND o.destination = $1 WHERE TRUE`+concernsSQL()+
		`ORDER BY e.pos LIMIT $5`, string(to), after, upto, string(as), limit)
}

// LoadOutboxNewest returns the positions of the newest event of each room that concerns a server after a position and up to another,
// lowest first.
func (tx *Tx) LoadOutboxNewest(as, to matrix.ServerName, after, upto int64, limit int) ([]int64, error) {
	var out []int64
	err := tx.query(func(r *sql.Rows) error {
		var pos int64
		if err := r.Scan(&pos); err != nil {
			return err
		}
		out = append(out, pos)
		return nil
	}, `SELECT n.pos FROM (SELECT (SELECT e.pos FROM events e WHERE e.room_num = o.room_num`+concernsSQL()+`ORDER BY e.pos DESC LIMIT 1) AS pos
		FROM outbox_rooms o JOIN rooms r ON r.room_num = o.room_num WHERE o.destination = $1 AND r.last_pos > $2) n
		WHERE n.pos IS NOT NULL ORDER BY n.pos LIMIT $5`, string(to), after, upto, string(as), limit)
	return out, err
}

// LoadEventsAt returns the events at positions, oldest first.
func (tx *Tx) LoadEventsAt(positions []int64) ([]*Event, error) {
	if len(positions) == 0 {
		return nil, nil
	}
	return tx.events(selectEventSQL+`WHERE e.pos INTSET($1) ORDER BY e.pos`, tx.set(positions))
}

// LoadOutboxReceipts returns the receipts of a tenant's users that concern a server and moved after a position and up to another, oldest
// first.
func (tx *Tx) LoadOutboxReceipts(as, to matrix.ServerName, after, upto int64, limit int) ([]Receipt, error) {
	return tx.receipts(selectReceiptsSQL+`JOIN outbox_rooms o ON o.room_num = p.room_num AND o.destination = $1 AND o.until = 0
		WHERE p.pos > $2 AND p.pos <= $3 AND p.receipt_type = 'm.read' AND `+suffixSQL("p.user_id", "(':' || CAST($4 AS TEXT))")+` ORDER BY p.pos LIMIT $5`,
		string(to), after, upto, string(as), limit)
}

// PutQuarantined keeps an item that a server refuses, for people to look at.
func (tx *Tx) PutQuarantined(q Quarantined) error {
	_, err := tx.exec(`INSERT INTO outbox_quarantine (tenant, destination, pos, item, status, message, content, created_ts)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (tenant, destination, pos) DO NOTHING`, string(q.Tenant), string(q.Destination), q.Pos,
		dbText(q.Item), q.Status, dbText(q.Message), bytesOrNil(q.Content, q.Content == nil), tx.nowMS())
	return err
}

// LoadQuarantined returns the items that servers refused, of all tenants, newest last.
func (tx *Tx) LoadQuarantined(limit int) ([]Quarantined, error) {
	var out []Quarantined
	err := tx.query(func(r *sql.Rows) error {
		var q Quarantined
		var as, to, item, message string
		if err := r.Scan(&as, &to, &q.Pos, &item, &q.Status, &message, &q.Content, &q.CreatedTS); err != nil {
			return err
		}
		q.Tenant, q.Destination, q.Item, q.Message = matrix.ServerName(as), matrix.ServerName(to), goText(item), goText(message)
		out = append(out, q)
		return nil
	}, `SELECT tenant, destination, pos, item, status, message, content, created_ts FROM outbox_quarantine ORDER BY created_ts, pos LIMIT $1`, limit)
	return out, err
}

// PruneRoomServers forgets stays in rooms that ended before a position, which everybody has been told of.
func (tx *Tx) PruneRoomServers(before int64) (int64, error) {
	return tx.exec(`DELETE FROM outbox_rooms WHERE until > 0 AND until < $1`, before)
}

// LoadDestination returns how far a tenant is with a server, the zero value where nothing was ever sent.
func (tx *Tx) LoadDestination(as, to matrix.ServerName) (Destination, error) {
	d := Destination{Tenant: as, Name: to}
	var newest, behind int64
	var text string
	err := tx.row(`SELECT pos, sending, newest, behind, failures, retry_ts, failed_ts, last_error FROM outbox_destinations
		WHERE tenant = $1 AND destination = $2`, []any{string(as), string(to)}, &d.Pos, &d.Sending, &newest, &behind, &d.Failures, &d.RetryTS, &d.FailedTS, &text)
	if errors.Is(err, ErrNotFound) {
		return d, nil
	}
	d.Newest, d.Behind, d.LastError = newest != 0, behind != 0, goText(text)
	return d, err
}
