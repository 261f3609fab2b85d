package appservices

import (
	"context"
	"slices"

	"github.com/go-json-experiment/json"

	"hansa/homeserver/clientsync"
	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/event"
	"hansa/policy"
	"hansa/storage"
)

const (
	typeMember = "m.room.member"
	// maxEyes is how many users of a bridge are tried to find one who may see an event.
	maxEyes = 8
	// maxInterest bounds the rooms of which it is remembered whether they concern a bridge.
	maxInterest = 50_000
)

// interest is what a bridge has to do with a room.
type interest struct {
	// users of the bridge that are, or were, in the room: those who are come first.
	users []storage.Member
	// whole says that the room or an alias of it lies in the bridge's namespaces: its bot is told of it without being in it.
	whole bool
}

// compose makes the transaction that follows on a position: what is in the entries up to the end of one that was not confirmed, or as much
// as fits.
func (rd *reader) compose(ctx context.Context, entries []storage.Entry, pos, upto, sending int64) (*transaction, error) {
	t := &transaction{end: upto}
	fixed := sending > pos
	if fixed {
		t.end = sending
	} else if len(entries) > rd.s.tune.chunk {
		t.end = entries[rd.s.tune.chunk-1].Pos
	}
	n := 0
	for n < len(entries) && entries[n].Pos <= t.end {
		n++
	}
	entries = entries[:n]
	bot, err := rd.s.Accounts.Party(ctx, rd.reg.Bot)
	if err != nil {
		return nil, err
	}
	may := rd.s.Policy.Consider(ctx, &policy.Input{Point: policy.BridgeAct, Time: rd.s.Now(), Tenant: policy.Tenant{Name: string(rd.reg.Tenant)}, Subject: bot,
		Bridge: &policy.Bridge{ID: rd.reg.ID}, Request: &policy.Request{Via: "internal"}})
	if may.Err != nil {
		return nil, may.Err
	}
	if !may.Allow {
		return t, nil
	}
	v := &view{rd: rd, ctx: ctx, bot: bot, contacts: map[matrix.UserID]*clientsync.Contacts{}, open: map[eye]bool{}, shown: map[matrix.EventID]*storage.Event{},
		prev: map[matrix.EventID]*storage.Event{}}
	if err := v.look(entries); err != nil {
		return nil, err
	}
	for i := range entries {
		if err := v.add(t, &entries[i]); err != nil {
			return nil, err
		}
		if !fixed && t.full(rd.s.tune) && i+1 < len(entries) {
			t.end = entries[i].Pos
			break
		}
	}
	return t, nil
}

// view is what the users of a bridge see of a range of the log.
type view struct {
	rd       *reader
	ctx      context.Context
	bot      *policy.Party
	contacts map[matrix.UserID]*clientsync.Contacts
	open     map[eye]bool
	shown    map[matrix.EventID]*storage.Event
	prev     map[matrix.EventID]*storage.Event
}

// eye is one user in one room.
type eye struct {
	user matrix.UserID
	room matrix.RoomID
}

// look finds out which events of the range the bridge is told of, and in which form.
func (v *view) look(entries []storage.Entry) error {
	rooms := map[matrix.RoomID][]*storage.Event{}
	var order []matrix.RoomID
	for i := range entries {
		e := &entries[i]
		v.rd.forget(e)
		if e.Kind != storage.KindEvent || e.Event.Flags.Hidden() || e.Pos <= 0 {
			continue
		}
		if rooms[e.RoomID] == nil {
			order = append(order, e.RoomID)
		}
		rooms[e.RoomID] = append(rooms[e.RoomID], e.Event)
	}
	for _, id := range order {
		if err := v.lookInto(id, rooms[id]); err != nil {
			return err
		}
	}
	return nil
}

// forget drops what an entry says has changed.
func (rd *reader) forget(e *storage.Entry) {
	switch {
	case e.Kind == storage.KindEvent && e.Event.StateKey != nil && e.Event.Type == typeMember && rd.reg.OwnsUser(matrix.UserID(*e.Event.StateKey)):
		delete(rd.interest, e.RoomID)
	case e.Kind == storage.KindEvent && e.Event.StateKey != nil && e.Event.Type == typeMember && rd.interest[e.RoomID] != nil && rd.coverable():
		delete(rd.interest, e.RoomID) // somebody of the tenant may have come in
	case e.Kind == storage.KindNotice && (e.Name == storage.NoticeState || e.Name == storage.NoticeDirectory || e.Name == storage.NoticeWithheld):
		delete(rd.interest, matrix.RoomID(e.Ref))
	case e.Kind == storage.KindNotice && e.Name == storage.NoticeParty && rd.reg.OwnsUser(matrix.UserID(e.Ref)):
		clear(rd.interest) // an account was made: it may have been in rooms before
	}
}

// coverable tells whether rooms can concern the bridge without its users being in them.
func (rd *reader) coverable() bool { return len(rd.reg.Rooms)+len(rd.reg.Aliases) > 0 }

func (v *view) lookInto(id matrix.RoomID, events []*storage.Event) error {
	var rest []*storage.Event
	for _, e := range events {
		if own, err := v.own(e); err != nil {
			return err
		} else if !own {
			rest = append(rest, e)
		}
	}
	in, err := v.rd.interestIn(v.ctx, id)
	if err != nil {
		return err
	}
	for i, m := range in.users {
		if len(rest) == 0 || i == maxEyes {
			break
		}
		if rest, err = v.through(m.UserID, id, rest, false); err != nil {
			return err
		}
	}
	if in.whole && len(rest) > 0 {
		_, err = v.through(v.rd.reg.Bot, id, rest, true)
	}
	return err
}

// own deals with the memberships of the bridge's users: they are told of them whatever they may read in the room.
func (v *view) own(e *storage.Event) (bool, error) {
	if e.StateKey == nil || e.Type != typeMember || !v.rd.reg.OwnsUser(matrix.UserID(*e.StateKey)) {
		return false, nil
	}
	user := matrix.UserID(*e.StateKey)
	c, err := v.contactsOf(user)
	if err != nil || c == nil {
		return false, err
	}
	if shown := c.Show(v.ctx, e); shown != nil {
		v.shown[e.ID] = shown
	}
	return true, c.Err()
}

// contactsOf answers whom a user of the bridge may know of; nil for one who is somebody else's.
func (v *view) contactsOf(user matrix.UserID) (*clientsync.Contacts, error) {
	if c, ok := v.contacts[user]; ok {
		return c, nil
	}
	p := v.bot
	if user != v.rd.reg.Bot {
		var err error
		if p, err = v.rd.s.Accounts.Party(v.ctx, user); err != nil {
			return nil, err
		}
	}
	var c *clientsync.Contacts
	if p.Bridge != nil && p.Bridge.ID == v.rd.reg.ID {
		c = v.rd.s.Sync.Contacts(p)
	}
	v.contacts[user] = c
	return c, nil
}

// isOpen tells whether a user of the bridge may read a room.
func (v *view) isOpen(user matrix.UserID, id matrix.RoomID) (bool, error) {
	key := eye{user, id}
	if ok, known := v.open[key]; known {
		return ok, nil
	}
	p, err := v.rd.s.Accounts.Party(v.ctx, user)
	if err != nil {
		return false, err
	}
	ok, err := v.rd.s.Sync.RoomOpen(v.ctx, p, id)
	if err == nil {
		v.open[key] = ok
	}
	return ok, err
}

// through shows events of a room as one user of the bridge sees them, and returns those that the user does not see. whole rooms are seen
// whatever their history visibility says: that is what the namespace is for.
func (v *view) through(user matrix.UserID, id matrix.RoomID, events []*storage.Event, whole bool) (rest []*storage.Event, err error) {
	c, err := v.contactsOf(user)
	if err != nil || c == nil {
		return events, err
	}
	if ok, err := v.isOpen(user, id); err != nil || !ok {
		return events, err
	}
	visible := map[matrix.EventID]bool{}
	var senders []matrix.UserID
	var before []matrix.EventID
	for _, e := range events {
		senders = append(senders, e.Sender)
		if e.StateKey != nil && e.Replaces != "" {
			before = append(before, e.Replaces)
		}
	}
	err = v.rd.s.DB.View(v.ctx, func(tx *storage.Tx) (err error) {
		if !whole {
			if visible, err = v.rd.s.Sync.Visible(tx, user, events); err != nil {
				return err
			}
		}
		found, err := tx.LoadEvents(before)
		for old, e := range found {
			v.prev[old] = e
		}
		return err
	})
	if err == nil {
		err = c.Ask(v.ctx, senders)
	}
	if err != nil {
		return nil, err
	}
	for _, e := range events {
		if shown := (*storage.Event)(nil); whole || visible[e.ID] {
			if shown = c.Show(v.ctx, e); shown != nil {
				v.shown[e.ID] = shown
				continue
			}
		}
		rest = append(rest, e)
	}
	return rest, c.Err()
}

// interestIn finds out what the bridge has to do with a room.
//
// differs: users that lie in a namespace and were not registered by the bridge are real people: that they are in a room is no interest
// of the bridge.
//
// spec: application-service-api#registration
func (rd *reader) interestIn(ctx context.Context, id matrix.RoomID) (*interest, error) {
	if in := rd.interest[id]; in != nil {
		return in, nil
	}
	in := &interest{}
	err := rd.s.DB.View(ctx, func(tx *storage.Tx) error {
		list, err := tx.LoadBridgeMembers(id, rd.reg.ID)
		if err != nil {
			return err
		}
		in.users = slices.DeleteFunc(list, func(m storage.Member) bool { return !rd.reg.OwnsUser(m.UserID) })
		in.whole = rd.reg.ownsRoom(id)
		if !in.whole && len(rd.reg.Aliases) > 0 {
			aliases, err := tx.LoadAliases(id, rd.reg.Tenant)
			if err != nil {
				return err
			}
			in.whole = slices.ContainsFunc(aliases, func(a storage.Alias) bool { return rd.reg.OwnsAlias(a.Alias) })
		}
		if in.whole {
			in.whole, err = tx.IsTenantIn(id, rd.reg.Tenant)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(in.users, func(a, b storage.Member) int {
		if x, y := rd.rank(a), rd.rank(b); x != y {
			return x - y
		}
		return int(min(max(b.Pos-a.Pos, -1), 1)) // the newest first: who left last has seen most
	})
	if len(in.users) > 4*maxEyes {
		in.users = in.users[: 4*maxEyes : 4*maxEyes]
	}
	if len(rd.interest) >= maxInterest {
		clear(rd.interest)
	}
	rd.interest[id] = in
	return in, nil
}

func (rd *reader) rank(m storage.Member) int {
	switch {
	case m.Membership == "join" && m.UserID == rd.reg.Bot:
		return 0
	case m.Membership == "join":
		return 1
	case m.Membership == "invite":
		return 3
	}
	return 2
}

// add appends what an entry tells the bridge.
func (v *view) add(t *transaction, e *storage.Entry) error {
	switch e.Kind {
	case storage.KindEvent:
		if shown := v.shown[e.Event.ID]; shown != nil {
			t.add(&t.events, v.client(e.Event, shown))
		}
	case storage.KindReceipt:
		if v.rd.reg.Ephemeral {
			return v.receipt(t, e.Receipt)
		}
	case storage.KindToDevice:
		if v.rd.reg.Ephemeral {
			return v.message(t, e)
		}
	}
	return nil
}

// client is an event as the bridge gets it. It holds nothing that changes with time, so that a retry is the same.
func (v *view) client(e, shown *storage.Event) []byte {
	out := event.AppendClient(nil, shown.Event, true)
	if e != shown || e.StateKey == nil {
		return append(out, '}')
	}
	old := v.prev[e.Replaces]
	if old == nil || old.Flags.Hidden() || old.Sender != e.Sender {
		return append(out, '}')
	}
	out = append(append(out, `,"unsigned":{"prev_content":`...), old.Content...)
	return append(out, '}', '}')
}

// receipt tells of a receipt in a room that one of the bridge's users is in, and may read. Private ones are told of the bridge's users alone.
//
// spec: application-service-api#pushing-ephemeral-data
func (v *view) receipt(t *transaction, r *storage.Receipt) error {
	if r == nil || r.Type != "m.read" && !(r.Type == "m.read.private" && v.rd.reg.OwnsUser(r.UserID)) {
		return nil
	}
	ok, err := v.hears(r.RoomID, r.UserID)
	if err != nil || !ok {
		return err
	}
	datum := map[string]any{"ts": r.TS}
	if r.ThreadID != "" {
		datum["thread_id"] = r.ThreadID
	}
	b, err := json.Marshal(map[string]any{"type": "m.receipt", "room_id": r.RoomID,
		"content": map[matrix.EventID]any{r.EventID: map[string]any{r.Type: map[matrix.UserID]any{r.UserID: datum}}}}, json.Deterministic(true))
	if err == nil {
		t.add(&t.ephemeral, b)
	}
	return err
}

// hears tells whether a user of the bridge is in a room, may read it and may know of somebody there.
func (v *view) hears(id matrix.RoomID, other matrix.UserID) (bool, error) {
	in, err := v.rd.interestIn(v.ctx, id)
	if err != nil {
		return false, err
	}
	for i, m := range in.users {
		if m.Membership != "join" || i == maxEyes {
			break
		}
		c, err := v.contactsOf(m.UserID)
		if err != nil {
			return false, err
		}
		if c == nil || !c.May(v.ctx, other) {
			if c != nil && c.Err() != nil {
				return false, c.Err()
			}
			continue
		}
		if ok, err := v.isOpen(m.UserID, id); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// message tells of a message to a device of one of the bridge's users.
func (v *view) message(t *transaction, e *storage.Entry) error {
	m := e.Message
	if m == nil || !v.rd.reg.OwnsUser(m.UserID) {
		return nil
	}
	c, err := v.contactsOf(m.UserID)
	if err != nil || c == nil {
		return err
	}
	if !c.May(v.ctx, m.Sender) {
		return c.Err()
	}
	out := append([]byte(`{"content":`), m.Content...)
	for _, f := range [...][2]string{{"sender", string(m.Sender)}, {"to_device_id", string(m.DeviceID)}, {"to_user_id", string(m.UserID)}, {"type", m.Type}} {
		out = canonicaljson.AppendString(append(out, `,"`+f[0]+`":`...), f[1])
	}
	t.add(&t.toDevice, append(out, '}'))
	t.devices = append(t.devices, deviceUpto{m.UserID, m.DeviceID, e.Pos})
	return nil
}
