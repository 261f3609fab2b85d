package storage

import (
	"database/sql"
	"fmt"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage/statemap"
)

const selectRoomSQL = `SELECT r.room_num, r.room_id, r.version, r.tenant, r.head, r.extremities, r.depth, r.state_root, r.last_pos, r.state_pos
	FROM rooms r `

func (tx *Tx) scanRoom(r interface{ Scan(...any) error }) (*Room, error) {
	var room Room
	var id, version, tenant, ext string
	var root []byte
	if err := r.Scan(&room.num, &id, &version, &tenant, &room.Head.Name, &ext, &room.Head.Depth, &root, &room.Head.LastPos, &room.Head.StatePos); err != nil {
		return nil, err
	}
	room.ID, room.Tenant, room.Version = matrix.RoomID(id), matrix.ServerName(tenant), tx.db.versions[version]
	if room.Version == nil {
		return nil, fmt.Errorf("room %s has unknown version %q", id, version)
	}
	copy(room.Head.StateRoot[:], root)
	var err error
	room.Head.Extremities, err = parseExtremities(ext)
	return &room, err
}

// LoadRoom returns a room with its head, or ErrNotFound.
func (tx *Tx) LoadRoom(id matrix.RoomID) (*Room, error) {
	rooms, err := tx.rooms(selectRoomSQL+`WHERE r.room_id = $1`, string(id))
	if err == nil && len(rooms) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return rooms[0], nil
}

// LoadRooms returns those of the rooms that exist.
func (tx *Tx) LoadRooms(ids []matrix.RoomID) ([]*Room, error) {
	return tx.rooms(selectRoomSQL+`WHERE r.room_id SET($1)`, setOf(tx, ids))
}

// LoadRoomsAfter returns up to limit rooms in the order of their making, after the room with the given number (0: from the first),
// and the number to go on from.
func (tx *Tx) LoadRoomsAfter(after int64, limit int) ([]*Room, int64, error) {
	rooms, err := tx.rooms(selectRoomSQL+`WHERE r.room_num > $1 ORDER BY r.room_num LIMIT $2`, after, limit)
	for _, r := range rooms {
		after = r.num
	}
	return rooms, after, err
}

func (tx *Tx) rooms(q string, args ...any) ([]*Room, error) {
	var out []*Room
	err := tx.query(func(r *sql.Rows) error {
		room, err := tx.scanRoom(r)
		out = append(out, room)
		return err
	}, q, args...)
	return out, err
}

// StateRow is one entry of the current state.
type StateRow struct {
	RoomID  matrix.RoomID
	Key     event.StateKey
	EventID matrix.EventID
	// AuthRank is the event's rank in the auth graph.
	AuthRank int64
	Pos      int64 // when it became current
}

// LoadStateRows returns the current state of a room without memberships (members are in LoadMembers) as identifiers.
func (tx *Tx) LoadStateRows(room matrix.RoomID) ([]StateRow, error) {
	var out []StateRow
	err := tx.query(func(r *sql.Rows) error {
		row := StateRow{RoomID: room}
		var t, k, id string
		if err := r.Scan(&t, &k, &id, &row.AuthRank, &row.Pos); err != nil {
			return err
		}
		row.Key, row.EventID = event.StateKey{Type: goText(t), Key: goText(k)}, matrix.EventID(id)
		out = append(out, row)
		return nil
	}, `SELECT s.type, s.state_key, s.event_id, s.auth_rank, s.pos FROM current_state s JOIN rooms r ON r.room_num = s.room_num
		WHERE r.room_id = $1 AND s.type <> 'm.room.member'`, string(room))
	return out, err
}

// LoadStateIDs returns the current state of a room with its memberships, as identifiers; of a larger one some limit entries.
func (tx *Tx) LoadStateIDs(room matrix.RoomID, limit int) (map[event.StateKey]matrix.EventID, error) {
	out := map[event.StateKey]matrix.EventID{}
	err := tx.query(func(r *sql.Rows) error {
		var t, k, id string
		err := r.Scan(&t, &k, &id)
		out[event.StateKey{Type: goText(t), Key: goText(k)}] = matrix.EventID(id)
		return err
	}, `SELECT s.type, s.state_key, s.event_id FROM current_state s JOIN rooms r ON r.room_num = s.room_num WHERE r.room_id = $1 LIMIT $2`, string(room), limit)
	return out, err
}

const stateEventsSQL = selectEventSQL + `JOIN current_state s ON s.room_num = e.room_num AND s.event_id = e.event_id `

// LoadState returns the events of the current state of rooms. members chooses whether memberships are among them.
func (tx *Tx) LoadState(rooms []matrix.RoomID, members bool) (map[matrix.RoomID][]*Event, error) {
	q := stateEventsSQL + `WHERE r.room_id SET($1)`
	if !members {
		q += ` AND s.type <> 'm.room.member'`
	}
	return tx.byRoom(tx.events(q, setOf(tx, rooms)))
}

// LoadStateTypes returns the current state events of the given types in rooms.
func (tx *Tx) LoadStateTypes(rooms []matrix.RoomID, types []string) (map[matrix.RoomID][]*Event, error) {
	return tx.byRoom(tx.events(stateEventsSQL+`WHERE r.room_id SET($1) AND s.type SET($2)`, setOf(tx, rooms), setOf(tx, types)))
}

// LoadMemberEvents returns the current membership events of the given users in rooms.
func (tx *Tx) LoadMemberEvents(rooms []matrix.RoomID, users []matrix.UserID) (map[matrix.RoomID][]*Event, error) {
	return tx.byRoom(tx.events(stateEventsSQL+`WHERE r.room_id SET($1) AND s.type = 'm.room.member' AND s.state_key SET($2)`, setOf(tx, rooms), setOf(tx, users)))
}

func (tx *Tx) byRoom(list []*Event, err error) (map[matrix.RoomID][]*Event, error) {
	out := map[matrix.RoomID][]*Event{}
	for _, e := range list {
		out[e.RoomID] = append(out[e.RoomID], e)
	}
	return out, err
}

// LoadStateEvent returns one entry of the current state, or ErrNotFound.
func (tx *Tx) LoadStateEvent(room matrix.RoomID, key event.StateKey) (*Event, error) {
	list, err := tx.events(stateEventsSQL+`WHERE r.room_id = $1 AND s.type = $2 AND s.state_key = $3`, string(room), dbText(key.Type), dbText(key.Key))
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// Member is a user's current membership of a room.
type Member struct {
	RoomID     matrix.RoomID
	UserID     matrix.UserID
	Membership string
	Sender     matrix.UserID // who made it so
	EventID    matrix.EventID
	AuthRank   int64 // the event's rank in the auth graph
	Pos        int64 // when it became current
	Forgotten  bool
}

const selectMembersSQL = `SELECT r.room_id, m.user_id, m.membership, m.sender, m.event_id, m.auth_rank, m.pos, m.forgotten
	FROM memberships m JOIN rooms r ON r.room_num = m.room_num `

func (tx *Tx) members(q string, args ...any) ([]Member, error) {
	var out []Member
	err := tx.query(func(r *sql.Rows) error {
		var m Member
		var room, user, sender, id string
		var forgotten int64
		if err := r.Scan(&room, &user, &m.Membership, &sender, &id, &m.AuthRank, &m.Pos, &forgotten); err != nil {
			return err
		}
		m.RoomID, m.UserID, m.Sender, m.EventID, m.Forgotten = matrix.RoomID(room), matrix.UserID(goText(user)), matrix.UserID(sender), matrix.EventID(id), forgotten != 0
		out = append(out, m)
		return nil
	}, q, args...)
	return out, err
}

// LoadMembers returns all memberships of a room, left and banned ones too.
func (tx *Tx) LoadMembers(room matrix.RoomID) ([]Member, error) {
	return tx.members(selectMembersSQL+`WHERE r.room_id = $1`, string(room))
}

// membersPage is how many memberships one statement reads where a room may have any number of them.
const membersPage = 20_000

// EachMember calls fn for all memberships of some rooms. However many there are, no statement takes long: PostgreSQL ends those that do.
func (tx *Tx) EachMember(rooms []matrix.RoomID, fn func(*Member)) error {
	list, err := tx.members(selectMembersSQL+`WHERE r.room_id SET($1) LIMIT $2`, setOf(tx, rooms), membersPage)
	if err != nil {
		return err
	}
	if len(list) < membersPage {
		for i := range list {
			fn(&list[i])
		}
		return nil
	}
	for _, room := range rooms {
		last := matrix.UserID("")
		for more := true; more; more = len(list) == membersPage {
			if list, err = tx.LoadMembersAfter(room, last, membersPage); err != nil {
				return err
			}
			for i := range list {
				fn(&list[i])
				last = list[i].UserID
			}
		}
	}
	return nil
}

// LoadMembersAfter returns up to limit memberships of a room in the order of the users, from the one after a user on.
func (tx *Tx) LoadMembersAfter(room matrix.RoomID, after matrix.UserID, limit int) ([]Member, error) {
	return tx.members(selectMembersSQL+`WHERE r.room_id = $1 AND m.user_id > $2 ORDER BY m.user_id LIMIT $3`, string(room), dbText(string(after)), limit)
}

// LoadJoinedUsers returns who is joined to a room.
func (tx *Tx) LoadJoinedUsers(room matrix.RoomID) ([]matrix.UserID, error) {
	var out []matrix.UserID
	err := tx.query(func(r *sql.Rows) error {
		var u string
		err := r.Scan(&u)
		out = append(out, matrix.UserID(goText(u)))
		return err
	}, `SELECT m.user_id FROM memberships m JOIN rooms r ON r.room_num = m.room_num WHERE r.room_id = $1 AND m.membership = 'join'`, string(room))
	return out, err
}

// CountMemberships returns those of the rooms that have more than least memberships, with how many these are, left and banned ones too.
func (tx *Tx) CountMemberships(rooms []matrix.RoomID, least int) (map[matrix.RoomID]int, error) {
	out := map[matrix.RoomID]int{}
	if len(rooms) == 0 {
		return out, nil
	}
	err := tx.query(func(r *sql.Rows) error {
		var room string
		var n int
		err := r.Scan(&room, &n)
		out[matrix.RoomID(room)] = n
		return err
	}, `SELECT r.room_id, COUNT(*) FROM memberships m JOIN rooms r ON r.room_num = m.room_num WHERE r.room_id SET($1) GROUP BY r.room_id
		HAVING COUNT(*) > $2`, setOf(tx, rooms), least)
	return out, err
}

// LoadMembersOf returns the memberships that some users have of some rooms.
func (tx *Tx) LoadMembersOf(rooms []matrix.RoomID, users []matrix.UserID) ([]Member, error) {
	return tx.members(selectMembersSQL+`WHERE r.room_id SET($1) AND m.user_id SET($2)`, setOf(tx, rooms), setOf(tx, users))
}

// LoadUserRooms returns all memberships of a user, forgotten ones too.
func (tx *Tx) LoadUserRooms(user matrix.UserID) ([]Member, error) {
	return tx.members(selectMembersSQL+`WHERE m.user_id = $1`, dbText(string(user)))
}

// LoadUsersRooms returns all memberships of several users.
func (tx *Tx) LoadUsersRooms(users []matrix.UserID) ([]Member, error) {
	return tx.members(selectMembersSQL+`WHERE m.user_id SET($1)`, setOf(tx, users))
}

// LoadHeroes returns, for each room, the first members in the order in which they came, without the given user: up to limit who are joined or
// invited, or where nobody is, up to limit who have left.
func (tx *Tx) LoadHeroes(rooms []matrix.RoomID, without matrix.UserID, limit int) (map[matrix.RoomID][]Member, error) {
	out := map[matrix.RoomID][]Member{}
	if len(rooms) == 0 {
		return out, nil
	}
	list, err := tx.members(`SELECT room_id, user_id, membership, sender, event_id, auth_rank, pos, forgotten FROM (
		SELECT r.room_id, m.user_id, m.membership, m.sender, m.event_id, m.auth_rank, m.pos, m.forgotten,
			ROW_NUMBER() OVER (PARTITION BY m.room_num ORDER BY CASE WHEN m.membership IN ('join', 'invite') THEN 0 ELSE 1 END, m.pos) AS place
		FROM memberships m JOIN rooms r ON r.room_num = m.room_num WHERE r.room_id SET($1) AND m.user_id <> $2) AS ranked
		WHERE place <= $3 ORDER BY room_id, place`, setOf(tx, rooms), dbText(string(without)), limit)
	for _, m := range list {
		if l := out[m.RoomID]; len(l) > 0 && present(l[0].Membership) && !present(m.Membership) {
			continue
		}
		out[m.RoomID] = append(out[m.RoomID], m)
	}
	return out, err
}

func present(membership string) bool { return membership == "join" || membership == "invite" }

// MemberCounts is how many users are joined to and invited into a room.
type MemberCounts struct{ Joined, Invited int }

// LoadMemberCounts counts the members of rooms.
func (tx *Tx) LoadMemberCounts(rooms []matrix.RoomID) (map[matrix.RoomID]MemberCounts, error) {
	out := map[matrix.RoomID]MemberCounts{}
	if len(rooms) == 0 {
		return out, nil
	}
	err := tx.query(func(r *sql.Rows) error {
		var room string
		var c MemberCounts
		if err := r.Scan(&room, &c.Joined, &c.Invited); err != nil {
			return err
		}
		out[matrix.RoomID(room)] = c
		return nil
	}, `SELECT r.room_id, SUM(CASE WHEN m.membership = 'join' THEN 1 ELSE 0 END), SUM(CASE WHEN m.membership = 'invite' THEN 1 ELSE 0 END)
		FROM memberships m JOIN rooms r ON r.room_num = m.room_num WHERE r.room_id SET($1) GROUP BY r.room_id`, setOf(tx, rooms))
	return out, err
}

// FindMember returns a user's membership of a room.
func (tx *Tx) FindMember(room matrix.RoomID, user matrix.UserID) (Member, bool, error) {
	list, err := tx.members(selectMembersSQL+`WHERE m.user_id = $1 AND r.room_id = $2`, dbText(string(user)), string(room))
	if err != nil || len(list) == 0 {
		return Member{}, false, err
	}
	return list[0], true, nil
}

// Forget hides a room that the user has left from all of the user's lists, until a new membership. It reports false when the
// user is in the room, invited or was never there.
func (tx *Tx) Forget(room matrix.RoomID, user matrix.UserID) (bool, error) {
	n, err := tx.exec(`UPDATE memberships SET forgotten = 1 WHERE user_id = $1 AND membership IN ('leave', 'ban')
		AND room_num = (SELECT room_num FROM rooms WHERE room_id = $2)`, dbText(string(user)), string(room))
	return n == 1, err
}

// LoadSharedUsers returns every user who is joined to a room that one of the given users is joined to.
func (tx *Tx) LoadSharedUsers(user matrix.UserID) ([]matrix.UserID, error) {
	var out []matrix.UserID
	err := tx.query(func(r *sql.Rows) error {
		var u string
		if err := r.Scan(&u); err != nil {
			return err
		}
		out = append(out, matrix.UserID(goText(u)))
		return nil
	}, `SELECT DISTINCT b.user_id FROM memberships a JOIN memberships b ON b.room_num = a.room_num AND b.membership = 'join'
		WHERE a.user_id = $1 AND a.membership = 'join'`, dbText(string(user)))
	return out, err
}

// LoadSharedRooms returns the rooms that both users are joined to.
func (tx *Tx) LoadSharedRooms(a, b matrix.UserID) ([]matrix.RoomID, error) {
	list, err := tx.members(selectMembersSQL+`JOIN memberships o ON o.room_num = m.room_num AND o.user_id = $2 AND o.membership = 'join'
		WHERE m.user_id = $1 AND m.membership = 'join'`, dbText(string(a)), dbText(string(b)))
	out := make([]matrix.RoomID, len(list))
	for i := range list {
		out[i] = list[i].RoomID
	}
	return out, err
}

// LoadActiveRooms returns which of the user's rooms have something new for clients after since.
func (tx *Tx) LoadActiveRooms(user matrix.UserID, since int64) ([]Member, error) {
	return tx.members(selectMembersSQL+`WHERE m.user_id = $1 AND m.forgotten = 0 AND (r.last_pos > $2 OR r.state_pos > $2 OR m.pos > $2)`,
		dbText(string(user)), since)
}

// LoadStateAt returns entries of the state with the given root.
func (tx *Tx) LoadStateAt(root statemap.Hash, keys []event.StateKey) (map[event.StateKey]*Event, error) {
	ids, err := statemap.GetMany(tx.LoadNodes, root, keys)
	if err != nil {
		return nil, err
	}
	list := make([]matrix.EventID, 0, len(ids))
	for _, id := range ids {
		list = append(list, id)
	}
	evs, err := tx.LoadEvents(list)
	if err != nil {
		return nil, err
	}
	out := make(map[event.StateKey]*Event, len(ids))
	for k, id := range ids {
		if e := evs[id]; e != nil {
			out[k] = e
		}
	}
	return out, nil
}

// LoadWholeStateAt returns all events of the state with the given root.
func (tx *Tx) LoadWholeStateAt(root statemap.Hash) ([]*Event, error) {
	var ids []matrix.EventID
	if err := statemap.Walk(tx.LoadNodes, root, func(_ event.StateKey, id matrix.EventID) { ids = append(ids, id) }); err != nil {
		return nil, err
	}
	return tx.events(selectEventSQL+`WHERE e.event_id SET($1)`, setOf(tx, ids))
}
