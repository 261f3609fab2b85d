package storage

import (
	"database/sql"

	"hansa/matrix"
	"hansa/matrix/event"
)

// NoticeRemoteMember says that a user's membership of a room that this deployment is not in has changed. Ref: user ID.
const NoticeRemoteMember = "remote_member"

// RemoteMember is the membership of a user of ours in a room that this deployment is not in: an invitation, a knock, or how either
// ended (`leave`). Where the room is known here from former days, the newer of this and of the membership in the room counts.
type RemoteMember struct {
	RoomID     matrix.RoomID
	UserID     matrix.UserID
	Membership string
	Sender     matrix.UserID
	// Version is the room version.
	Version *matrix.RoomVersion
	EventID matrix.EventID
	// Via is the server through which the room can be reached.
	Via matrix.ServerName
	// Event is the PDU, signatures included; empty where another server could not be told of the end.
	Event []byte
	// Stripped is a JSON array of stripped state: what the user may know of the room.
	Stripped []byte
	Pos      int64
}

// Open tells whether the user is still invited or knocking.
func (m *RemoteMember) Open() bool { return m.Membership == "invite" || m.Membership == "knock" }

// Parse returns the event, nil where there is none.
func (m *RemoteMember) Parse() (*event.Event, error) {
	if len(m.Event) == 0 {
		return nil, nil
	}
	return event.Parse(m.Version, m.Event)
}

// PutRemoteMember stores a membership in the place of an older one of the user in the room, and tells the user's clients.
func (tx *Tx) PutRemoteMember(m RemoteMember) error {
	if err := tx.Announce(NoticeRemoteMember, string(m.UserID)); err != nil {
		return err
	}
	if m.Event == nil {
		m.Event = []byte{}
	}
	if len(m.Stripped) == 0 {
		m.Stripped = []byte("[]")
	}
	_, err := tx.exec(`INSERT INTO remote_memberships (user_id, room_id, membership, sender, version, event_id, via, json, stripped, pos)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
		ON CONFLICT (user_id, room_id) DO UPDATE SET membership = excluded.membership, sender = excluded.sender, version = excluded.version,
		event_id = excluded.event_id, via = excluded.via, json = excluded.json, stripped = excluded.stripped, pos = excluded.pos`,
		dbText(string(m.UserID)), string(m.RoomID), m.Membership, dbText(string(m.Sender)), m.Version.ID, dbText(string(m.EventID)), string(m.Via),
		m.Event, m.Stripped, tx.last)
	return err
}

// DropRemoteMember forgets a membership: the user is in the room now, or wants to hear no more of it.
func (tx *Tx) DropRemoteMember(room matrix.RoomID, user matrix.UserID) (bool, error) {
	n, err := tx.exec(`DELETE FROM remote_memberships WHERE user_id = $1 AND room_id = $2`, dbText(string(user)), string(room))
	return n == 1, err
}

const selectRemoteMemberSQL = `SELECT p.user_id, p.room_id, p.membership, p.sender, p.version, p.event_id, p.via, p.json, p.stripped, p.pos
	FROM remote_memberships p `

// notOvertakenSQL leaves out what a newer membership in the room itself has overtaken. Who is in the room is in it, whatever came by another way.
const notOvertakenSQL = ` AND NOT EXISTS (SELECT 1 FROM memberships m JOIN rooms r ON r.room_num = m.room_num
	WHERE m.user_id = p.user_id AND r.room_id = p.room_id AND (m.pos > p.pos OR m.membership = 'join'))`

func (tx *Tx) remoteMembers(q string, args ...any) ([]RemoteMember, error) {
	var out []RemoteMember
	err := tx.query(func(r *sql.Rows) error {
		var m RemoteMember
		var user, room, sender, version, id, via string
		if err := r.Scan(&user, &room, &m.Membership, &sender, &version, &id, &via, &m.Event, &m.Stripped, &m.Pos); err != nil {
			return err
		}
		m.UserID, m.RoomID, m.Sender, m.Version = matrix.UserID(goText(user)), matrix.RoomID(room), matrix.UserID(goText(sender)), tx.db.versions[version]
		m.EventID, m.Via = matrix.EventID(goText(id)), matrix.ServerName(via)
		if m.Version != nil && tx.readable(m.Stripped, m.Pos) {
			out = append(out, m)
		}
		return nil
	}, q, args...)
	return out, err
}

// FindRemoteMember returns a user's membership of a room that this deployment is not in.
func (tx *Tx) FindRemoteMember(room matrix.RoomID, user matrix.UserID) (RemoteMember, bool, error) {
	list, err := tx.remoteMembers(selectRemoteMemberSQL+`WHERE p.user_id = $1 AND p.room_id = $2`+notOvertakenSQL, dbText(string(user)), string(room))
	if err != nil || len(list) == 0 {
		return RemoteMember{}, false, err
	}
	return list[0], true, nil
}

// LoadRemoteMembers returns the memberships of a user in rooms that this deployment is not in, as far as they are newer than since.
func (tx *Tx) LoadRemoteMembers(user matrix.UserID, since int64) ([]RemoteMember, error) {
	return tx.remoteMembers(selectRemoteMemberSQL+`WHERE p.user_id = $1 AND p.pos > $2`+notOvertakenSQL, dbText(string(user)), since)
}

// CountRemoteInvites returns how many open invitations of that kind a user has.
func (tx *Tx) CountRemoteInvites(user matrix.UserID) (n int, err error) {
	err = tx.row(`SELECT COUNT(*) FROM remote_memberships p WHERE p.user_id = $1 AND p.membership = 'invite'`+notOvertakenSQL, []any{dbText(string(user))}, &n)
	return n, err
}
