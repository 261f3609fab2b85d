package storage

import (
	"database/sql"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
)

// ReadLog returns the entries after one position and up to another, in order. A position may have no entry: a receipt, account
// datum or device list that was changed again later shows only at its newest position, and hidden events have none.
func (tx *Tx) ReadLog(after, upto int64) ([]Entry, error) {
	var out []Entry
	evs, err := tx.events(logEventsSQL, after, upto)
	if err != nil {
		return nil, err
	}
	var rest []Entry
	err = tx.query(func(r *sql.Rows) error {
		e, err := scanEntry(r)
		if e.Data != nil && !tx.readable(e.Data.Content, e.Pos) || e.Message != nil && !tx.readable(e.Message.Content, e.Pos) {
			return err
		}
		rest = append(rest, e)
		return err
	}, readLogSQL, after, upto)
	for len(evs)+len(rest) > 0 {
		if len(rest) == 0 || len(evs) > 0 && evs[0].Pos < rest[0].Pos {
			out = append(out, Entry{Pos: evs[0].Pos, Kind: KindEvent, Event: evs[0], RoomID: evs[0].RoomID})
			evs = evs[1:]
		} else {
			out = append(out, rest[0])
			rest = rest[1:]
		}
	}
	return out, err
}

// newsMax is how many positions ReadNews looks at.
const newsMax = 512

const (
	// rangeSQL asks for the version of each event's room apart. Joined, PostgreSQL reads all rooms each time where it does not know yet how
	// few events lie in the range.
	rangeSQL     = `SELECT ` + eventNameSQL + `, (SELECT r.version FROM rooms r WHERE r.room_num = e.room_num), ` + eventRestSQL
	logEventsSQL = rangeSQL + ` FROM events e WHERE e.pos > $1 AND e.pos <= $2 AND e.flags & 16 = 0 ORDER BY e.pos`
	newsSQL      = rangeSQL + `, l.pos, l.backfill, l.epoch FROM events e JOIN log_position l ON l.id = 1
		WHERE e.pos > $1 AND e.pos <= $2 AND e.flags & 16 = 0 AND NOT e.pos INTSET($3) ORDER BY e.pos`
)

// ReadNews reads the events behind a position but for those at the positions that are in memory already, and how far the log goes: in one
// statement, for a node looks many times a second while others write. newest is 0 where there is no event; of what lies in the log between
// the events, and more than 512 positions on, ReadLog tells.
func (tx *Tx) ReadNews(after int64, have []int64) (entries []Entry, newest int64, err error) {
	var backfill, epoch int64
	seen := tx.db.marks.Mark()
	evs, err := tx.eventsAnd([]any{&newest, &backfill, &epoch}, newsSQL, after, after+newsMax, tx.set(have))
	if err == nil && newest > 0 && !tx.old {
		err = tx.db.marks.compare(seen, newest, backfill, epoch)
	}
	for _, e := range evs {
		entries = append(entries, Entry{Pos: e.Pos, Kind: KindEvent, Event: e, RoomID: e.RoomID})
	}
	return entries, newest, err
}

const readLogSQL = `SELECT p.pos, 2, r.room_id, p.user_id, '', p.receipt_type, p.thread_id, p.event_id, p.event_pos, p.ts, NULL
		FROM receipts p JOIN rooms r ON r.room_num = p.room_num WHERE p.pos > $1 AND p.pos <= $2
	UNION ALL SELECT a.pos, 3, a.room_id, a.user_id, '', a.type, '', '', 0, 0, a.content FROM account_data a WHERE a.pos > $1 AND a.pos <= $2
	UNION ALL SELECT t.pos, 4, '', t.user_id, t.device_id, t.type, t.sender, '', 0, 0, t.content FROM to_device t WHERE t.pos > $1 AND t.pos <= $2
	UNION ALL SELECT d.pos, 5, '', d.user_id, '', '', '', '', 0, 0, NULL FROM device_list_changes d WHERE d.pos > $1 AND d.pos <= $2
	UNION ALL SELECT n.pos, 6, '', '', '', n.name, n.ref, '', 0, 0, NULL FROM notices n WHERE n.pos > $1 AND n.pos <= $2
	ORDER BY 1`

// readable tells whether stored JSON can be passed on. A damaged row is left out and logged: spliced into an answer it would make
// all of that unreadable.
func (tx *Tx) readable(content []byte, pos int64) bool {
	if jsontext.Value(content).IsValid() {
		return true
	}
	tx.db.log.WithField("pos", pos).Error("skipped a damaged row")
	return false
}

func scanEntry(r *sql.Rows) (Entry, error) {
	var e Entry
	var room, user, device, a, b, id string
	var eventPos, ts int64
	var data []byte
	if err := r.Scan(&e.Pos, &e.Kind, &room, &user, &device, &a, &b, &id, &eventPos, &ts, &data); err != nil {
		return e, err
	}
	e.RoomID, e.UserID, e.DeviceID = matrix.RoomID(room), matrix.UserID(goText(user)), matrix.DeviceID(goText(device))
	switch e.Kind {
	case KindReceipt:
		e.Receipt = &Receipt{e.RoomID, e.UserID, a, goText(b), matrix.EventID(id), eventPos, ts, e.Pos}
	case KindAccountData:
		e.Data = &AccountData{e.UserID, e.RoomID, goText(a), data, e.Pos}
	case KindToDevice:
		e.Message = &ToDevice{e.UserID, e.DeviceID, matrix.UserID(goText(b)), goText(a), data, e.Pos}
	case KindNotice:
		e.Name, e.Ref = a, goText(b)
	}
	return e, nil
}

// Announce puts a notice into the log: caches and followers that depend on the named thing look again.
func (tx *Tx) Announce(name, ref string) error {
	pos, err := tx.emit(Entry{Kind: KindNotice, Name: name, Ref: ref})
	if err != nil {
		return err
	}
	_, err = tx.exec(`INSERT INTO notices (pos, name, ref, created_ts) VALUES ($1, $2, $3, $4)`, pos, name, dbText(ref), tx.nowMS())
	return err
}

// PruneNotices forgets notices from before a time in ms.
func (tx *Tx) PruneNotices(before int64) (int64, error) {
	return tx.exec(`DELETE FROM notices WHERE created_ts < $1`, before)
}

// PutReceipt stores a receipt. It does nothing and reports false when the stored receipt is at the same or a later event.
func (tx *Tx) PutReceipt(r Receipt) (bool, error) {
	pos, err := tx.emit(Entry{Kind: KindReceipt, RoomID: r.RoomID, UserID: r.UserID, Receipt: &r})
	if err != nil {
		return false, err
	}
	r.Pos = pos
	n, err := tx.exec(`INSERT INTO receipts (room_num, user_id, receipt_type, thread_id, event_id, event_pos, ts, pos)
		SELECT room_num, CAST($2 AS TEXT), CAST($3 AS TEXT), CAST($4 AS TEXT), CAST($5 AS TEXT), CAST($6 AS BIGINT), CAST($7 AS BIGINT),
		CAST($8 AS BIGINT) FROM rooms WHERE room_id = $1
		ON CONFLICT (room_num, user_id, receipt_type, thread_id) DO UPDATE SET event_id = excluded.event_id, event_pos = excluded.event_pos,
		ts = excluded.ts, pos = excluded.pos WHERE receipts.event_pos < excluded.event_pos`,
		string(r.RoomID), dbText(string(r.UserID)), r.Type, dbText(r.ThreadID), string(r.EventID), r.EventPos, r.TS, pos)
	if n == 0 {
		tx.entries = tx.entries[:len(tx.entries)-1] // nobody needs to hear of it; the position stays empty
	}
	return n == 1, err
}

const selectReceiptsSQL = `SELECT r.room_id, p.user_id, p.receipt_type, p.thread_id, p.event_id, p.event_pos, p.ts, p.pos
	FROM receipts p JOIN rooms r ON r.room_num = p.room_num `

func (tx *Tx) receipts(q string, args ...any) ([]Receipt, error) {
	var out []Receipt
	err := tx.query(func(r *sql.Rows) error {
		var p Receipt
		var room, user, thread, id string
		if err := r.Scan(&room, &user, &p.Type, &thread, &id, &p.EventPos, &p.TS, &p.Pos); err != nil {
			return err
		}
		p.RoomID, p.UserID, p.ThreadID, p.EventID = matrix.RoomID(room), matrix.UserID(goText(user)), goText(thread), matrix.EventID(id)
		out = append(out, p)
		return nil
	}, q, args...)
	return out, err
}

// LoadReceipts returns the receipts in rooms that moved after since and up to upto.
func (tx *Tx) LoadReceipts(rooms []matrix.RoomID, since, upto int64) ([]Receipt, error) {
	if len(rooms) == 0 {
		return nil, nil
	}
	return tx.receipts(selectReceiptsSQL+`WHERE r.room_id SET($1) AND p.pos > $2 AND p.pos <= $3`, setOf(tx, rooms), since, upto)
}

// LoadOwnReceipts returns all receipts of one user.
func (tx *Tx) LoadOwnReceipts(user matrix.UserID) ([]Receipt, error) {
	return tx.receipts(selectReceiptsSQL+`WHERE p.user_id = $1`, dbText(string(user)))
}

// PutAccountData stores an account datum of a user; RoomID is empty for a global one.
func (tx *Tx) PutAccountData(d AccountData) error {
	pos, err := tx.emit(Entry{Kind: KindAccountData, UserID: d.UserID, RoomID: d.RoomID, Data: &d})
	if err != nil {
		return err
	}
	d.Pos = pos
	_, err = tx.exec(`INSERT INTO account_data (user_id, room_id, type, content, pos) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (user_id, room_id, type) DO UPDATE SET content = excluded.content, pos = excluded.pos`,
		dbText(string(d.UserID)), string(d.RoomID), dbText(d.Type), d.Content, pos)
	return err
}

const selectAccountDataSQL = `SELECT user_id, room_id, type, content, pos FROM account_data `

func (tx *Tx) accountData(q string, args ...any) ([]AccountData, error) {
	var out []AccountData
	err := tx.query(func(r *sql.Rows) error {
		var d AccountData
		var user, room, typ string
		if err := r.Scan(&user, &room, &typ, &d.Content, &d.Pos); err != nil {
			return err
		}
		d.UserID, d.RoomID, d.Type = matrix.UserID(goText(user)), matrix.RoomID(room), goText(typ)
		if tx.readable(d.Content, d.Pos) {
			out = append(out, d)
		}
		return nil
	}, q, args...)
	return out, err
}

// LoadAccountData returns a user's account data, global and of rooms, that changed after since and up to upto.
func (tx *Tx) LoadAccountData(user matrix.UserID, since, upto int64) ([]AccountData, error) {
	return tx.accountData(selectAccountDataSQL+`WHERE user_id = $1 AND pos > $2 AND pos <= $3`, dbText(string(user)), since, upto)
}

// LoadAccountDatum returns one account datum, or ErrNotFound.
func (tx *Tx) LoadAccountDatum(user matrix.UserID, room matrix.RoomID, typ string) (AccountData, error) {
	list, err := tx.accountData(selectAccountDataSQL+`WHERE user_id = $1 AND room_id = $2 AND type = $3`, dbText(string(user)), string(room), dbText(typ))
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return AccountData{}, err
	}
	return list[0], nil
}

// PutToDevice queues messages, each for one device, in the order given.
func (tx *Tx) PutToDevice(list []ToDevice) error {
	if len(list) == 0 {
		return nil
	}
	last, _, err := tx.raise(int64(len(list)), 0)
	if err != nil {
		return err
	}
	rows := make([][]any, len(list))
	for i := range list {
		m := &list[i]
		m.Pos = last - int64(len(list)) + 1 + int64(i)
		tx.entries = append(tx.entries, Entry{Pos: m.Pos, Kind: KindToDevice, UserID: m.UserID, DeviceID: m.DeviceID, Message: m})
		rows[i] = []any{m.Pos, dbText(string(m.UserID)), dbText(string(m.DeviceID)), dbText(string(m.Sender)), dbText(m.Type), m.Content}
	}
	return tx.bulk(`INSERT INTO to_device (pos, user_id, device_id, sender, type, content)`,
		[]string{"BIGINT", "TEXT", "TEXT", "TEXT", "TEXT", "BYTEA"}, "", rows, nil)
}

// LoadToDevice returns the oldest messages for a device after a position and up to another.
func (tx *Tx) LoadToDevice(user matrix.UserID, device matrix.DeviceID, after, upto int64, limit int) ([]ToDevice, error) {
	var out []ToDevice
	err := tx.query(func(r *sql.Rows) error {
		m := ToDevice{UserID: user, DeviceID: device}
		var sender, typ string
		if err := r.Scan(&m.Pos, &sender, &typ, &m.Content); err != nil {
			return err
		}
		m.Sender, m.Type = matrix.UserID(goText(sender)), goText(typ)
		if tx.readable(m.Content, m.Pos) {
			out = append(out, m)
		}
		return nil
	}, `SELECT pos, sender, type, content FROM to_device WHERE user_id = $1 AND device_id = $2 AND pos > $3 AND pos <= $4 ORDER BY pos LIMIT $5`,
		dbText(string(user)), dbText(string(device)), after, upto, limit)
	return out, err
}

// DeleteToDevice removes the messages that a device has acknowledged: those up to a position.
func (tx *Tx) DeleteToDevice(user matrix.UserID, device matrix.DeviceID, upto int64) (int64, error) {
	return tx.exec(`DELETE FROM to_device WHERE user_id = $1 AND device_id = $2 AND pos <= $3`, dbText(string(user)), dbText(string(device)), upto)
}

// TouchDeviceList puts a change of a user's devices or keys into the log.
func (tx *Tx) TouchDeviceList(user matrix.UserID) error {
	pos, err := tx.emit(Entry{Kind: KindDeviceList, UserID: user})
	if err != nil {
		return err
	}
	_, err = tx.exec(`INSERT INTO device_list_changes (user_id, pos) VALUES ($1, $2) ON CONFLICT (user_id) DO UPDATE SET pos = excluded.pos`,
		dbText(string(user)), pos)
	return err
}

// LoadDeviceListChanges returns the users whose devices or keys changed after since and up to upto.
func (tx *Tx) LoadDeviceListChanges(since, upto int64) ([]matrix.UserID, error) {
	var out []matrix.UserID
	err := tx.query(func(r *sql.Rows) error {
		var u string
		if err := r.Scan(&u); err != nil {
			return err
		}
		out = append(out, matrix.UserID(goText(u)))
		return nil
	}, `SELECT user_id FROM device_list_changes WHERE pos > $1 AND pos <= $2`, since, upto)
	return out, err
}

// LoadCursor returns where a follower is, 0 for one that never ran.
func (tx *Tx) LoadCursor(name string) (int64, error) {
	var pos int64
	err := tx.row(`SELECT pos FROM cursors WHERE name = $1`, []any{name}, &pos)
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	return pos, err
}

// SetCursor moves a follower. It never moves back.
func (tx *Tx) SetCursor(name string, pos int64) error {
	_, err := tx.exec(`INSERT INTO cursors (name, pos) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET pos = excluded.pos WHERE cursors.pos < excluded.pos`, name, pos)
	if err != nil {
		return fmt.Errorf("cursor %s: %w", name, err)
	}
	return nil
}

// LoadReceiptsOf returns the receipts that moved after since and up to upto in the rooms that a user is joined to.
func (tx *Tx) LoadReceiptsOf(user matrix.UserID, since, upto int64) ([]Receipt, error) {
	return tx.receipts(selectReceiptsSQL+`JOIN memberships m ON m.room_num = p.room_num AND m.user_id = $1 AND m.membership = 'join'
		WHERE p.pos > $2 AND p.pos <= $3`, dbText(string(user)), since, upto)
}

// LoadSharedDeviceChanges returns the users whose devices or keys changed after since and up to upto, of those who share a room with a user, and the
// user too.
func (tx *Tx) LoadSharedDeviceChanges(user matrix.UserID, since, upto int64) ([]matrix.UserID, error) {
	var out []matrix.UserID
	err := tx.query(func(r *sql.Rows) error {
		var u string
		if err := r.Scan(&u); err != nil {
			return err
		}
		out = append(out, matrix.UserID(goText(u)))
		return nil
	}, `SELECT d.user_id FROM device_list_changes d WHERE d.pos > $2 AND d.pos <= $3 AND (d.user_id = $1 OR EXISTS (
		SELECT 1 FROM memberships a JOIN memberships b ON b.room_num = a.room_num AND b.user_id = $1 AND b.membership = 'join'
		WHERE a.user_id = d.user_id AND a.membership = 'join'))
		UNION SELECT s.target_id FROM key_signatures s WHERE s.signer_id = $1 AND s.pos > $2 AND s.pos <= $3`, dbText(string(user)), since, upto)
	return out, err
}
