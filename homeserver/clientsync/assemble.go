package clientsync

import (
	"context"
	"slices"
	"strconv"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/canonicaljson"
	"hansa/storage"
)

func appendString(dst []byte, s string) []byte { return canonicaljson.AppendString(dst, s) }

// assemble makes the response. empty tells that there is nothing in it that the client waits for.
func (s *Service) assemble(ctx context.Context, q *Request, b *inbox, d *device, n *news) (body []byte, empty bool, err error) {
	a := &assembly{s: s, ctx: ctx, q: q, b: b, d: d, n: n, contacts: s.Contacts(q.Party)}
	a.r = reader{user: q.User, device: q.Device, now: s.Now().UnixMilli()}
	b.mu.Lock()
	a.ignored = b.ignored
	if q.Since != nil && q.Since.Pos > b.served {
		clear(b.counts) // what the other node told is not in them
	}
	b.served = max(b.served, n.upto)
	b.mu.Unlock()
	if err := a.screen(); err != nil {
		return nil, false, err
	}
	if err := s.countUnread(ctx, q, b, n); err != nil {
		return nil, false, err
	}
	if err := a.load(); err != nil {
		return nil, false, err
	}
	token := Token{Pos: n.upto, Ephemeral: n.ephUpto, Held: a.held()}
	if len(n.toDevice) > toDeviceMax {
		n.toDevice = n.toDevice[:toDeviceMax]
		token.ToDevice = n.toDevice[toDeviceMax-1].Pos
	}
	a.dst = append(make([]byte, 0, a.estimate()), `{"next_batch":`...)
	a.dst = appendString(a.dst, token.String())
	empty = !n.first && !q.FullState
	for _, section := range []func() bool{a.rooms, a.accountData, a.presence, a.toDevice, a.deviceLists} {
		if section() {
			empty = false
		}
	}
	told, err := a.keyCounts()
	if err == nil {
		err = a.err
	}
	if err == nil {
		err = a.contacts.Err() // an answer without what could not be judged would be taken for the whole
	}
	if err != nil {
		return nil, false, err
	}
	a.dst = append(a.dst, '}')
	if empty = empty && !told; !empty {
		b.mu.Lock()
		d.lastNews = s.Now()
		if len(n.toDevice) > 0 {
			d.given = n.toDevice[len(n.toDevice)-1].Pos
		}
		b.mu.Unlock()
	}
	return a.dst, empty, nil
}

// assembly is the making of one response.
type assembly struct {
	s        *Service
	ctx      context.Context // of one request
	q        *Request
	b        *inbox
	d        *device
	n        *news
	r        reader
	dst      []byte
	contacts *Contacts
	ignored  map[matrix.UserID]bool
	// closed are the rooms that were left out because of policy.
	closed []matrix.RoomID
	// members are lazy-loaded memberships, by room and user.
	members map[matrix.RoomID]map[matrix.UserID]*storage.Event
	err     error // of what is read while it is written
}

func (a *assembly) estimate() int {
	size := 1024
	for u := range a.n.devices {
		size += len(u) + 3
	}
	for _, r := range a.n.rooms {
		size += 512 + 192*len(r.state)
		for _, it := range r.timeline {
			size += len(it.client) + 160
		}
		for _, e := range r.state {
			size += len(e.JSON)
		}
	}
	return size
}

// screen leaves out what policy and the reader's own list of ignored users forbid.
func (a *assembly) screen() error {
	if err := a.contacts.Ask(a.ctx, a.people()); err != nil {
		return err
	}
	for _, id := range a.n.order {
		r := a.n.rooms[id]
		if r.membership == auth.Join {
			open, err := a.s.RoomOpen(a.ctx, a.q.Party, id)
			if err != nil {
				return err
			}
			if !open {
				a.closed = append(a.closed, id)
				delete(a.n.rooms, id)
				continue
			}
		}
		r.timeline = a.showItems(r.timeline)
		r.dropped = a.showItems(r.dropped)
		r.state = a.showEvents(r.state)
		if r.membership == auth.Invite && !a.mayBeInvited(r) {
			delete(a.n.rooms, id)
			continue
		}
		r.stripped = a.showEvents(r.stripped)
		r.receipts = slices.DeleteFunc(r.receipts, func(p storage.Receipt) bool {
			if p.UserID == a.q.User {
				return false
			}
			return p.Type != "m.read" || !a.contacts.May(a.ctx, p.UserID)
		})
	}
	a.n.order = slices.DeleteFunc(a.n.order, func(id matrix.RoomID) bool { return a.n.rooms[id] == nil })
	for _, list := range []map[matrix.UserID]bool{a.n.devices, a.n.left} {
		if err := a.screenList(list); err != nil {
			return err
		}
	}
	return nil
}

// screenList leaves out of a list whom the reader may not know of. What is found out about a crowd is not kept.
func (a *assembly) screenList(list map[matrix.UserID]bool) error {
	if len(list) == 0 {
		return nil
	}
	crowd := len(list) > askAtOnce
	some := make([]matrix.UserID, 0, min(len(list), askAtOnce))
	screen := func() error {
		c := a.contacts
		if crowd {
			c = a.s.Contacts(a.q.Party)
		}
		if err := c.Ask(a.ctx, some); err != nil {
			return err
		}
		for _, u := range some {
			if !c.May(a.ctx, u) {
				delete(list, u)
			}
		}
		some = some[:0]
		return c.Err()
	}
	for u := range list {
		if some = append(some, u); len(some) == askAtOnce {
			if err := screen(); err != nil {
				return err
			}
		}
	}
	return screen()
}

// people lists everybody of whom the rooms of the response would tell.
func (a *assembly) people() []matrix.UserID {
	seen := map[matrix.UserID]bool{}
	for _, r := range a.n.rooms {
		for _, it := range r.timeline {
			seen[it.Sender] = true
		}
		for _, e := range r.state {
			seen[e.Sender] = true
			if e.Type == typeMember {
				seen[matrix.UserID(*e.StateKey)] = true
			}
		}
		for i := range r.receipts {
			seen[r.receipts[i].UserID] = true
		}
	}
	out := make([]matrix.UserID, 0, len(seen))
	for u := range seen {
		out = append(out, u)
	}
	return out
}

func (a *assembly) showItems(list []*item) []*item {
	out := list[:0:0]
	for _, it := range list {
		if it.StateKey == nil && a.ignored[it.Sender] {
			continue
		}
		switch e := a.contacts.Show(a.ctx, it.Event); {
		case e == nil:
		case e == it.Event:
			out = append(out, it)
		default:
			out = append(out, newItem(e))
		}
	}
	return out
}

func (a *assembly) showEvents(list []*storage.Event) []*storage.Event {
	out := list[:0:0]
	for _, e := range list {
		if shown := a.contacts.Show(a.ctx, e); shown != nil {
			out = append(out, shown)
		}
	}
	return out
}

// mayBeInvited tells whether an invitation is shown: not from somebody who is ignored or whom policy keeps apart.
func (a *assembly) mayBeInvited(r *roomNews) bool {
	for _, e := range r.stripped {
		if e.Is(typeMember, string(a.q.User)) {
			if !a.contacts.May(a.ctx, e.Sender) {
				a.closed = append(a.closed, r.id)
				return false
			}
			return !a.ignored[e.Sender]
		}
	}
	return true
}

// load reads what the chosen events need besides: replaced state, redactions, lazy-loaded members, summaries.
func (a *assembly) load() error {
	var want []matrix.EventID
	var summaries []matrix.RoomID
	lazy := map[matrix.RoomID][]matrix.UserID{}
	for _, id := range a.n.order {
		r := a.n.rooms[id]
		for _, it := range r.timeline {
			if it.StateKey != nil && it.Replaces != "" {
				want = append(want, it.Replaces)
			}
			if it.RedactedBy != "" {
				want = append(want, it.RedactedBy)
			}
		}
		if r.moved && r.membership == auth.Join {
			summaries = append(summaries, id)
		}
		if lazyMembers(a.q) && r.membership == auth.Join {
			if users := a.lazyUsers(r); len(users) > 0 {
				lazy[id] = users
			}
		}
	}
	if len(want)+len(summaries)+len(lazy) == 0 {
		return nil
	}
	unseen, err := a.unseen(summaries)
	if err != nil {
		return err
	}
	return a.s.DB.View(a.ctx, func(tx *storage.Tx) (err error) {
		found, err := tx.LoadEvents(want)
		if err != nil {
			return err
		}
		if err := a.s.eraseIn(tx, a.q.User, a.n.rooms, found); err != nil {
			return err
		}
		a.r.replaced = map[matrix.EventID]*storage.Event{}
		a.r.redactions = a.r.replaced
		for id, e := range found {
			if a.contacts.Show(a.ctx, e) == e { // what was replaced, and who took something away, is told only if the reader may see it
				a.r.replaced[id] = e
			}
		}
		if err := a.loadSummaries(tx, summaries, unseen); err != nil {
			return err
		}
		return a.loadMembers(tx, lazy)
	})
}

// rooms writes the section rooms.
func (a *assembly) rooms() bool {
	sections := []struct {
		name  string
		match string
	}{{"join", auth.Join}, {"invite", auth.Invite}, {"knock", auth.Knock}, {"leave", auth.Leave}}
	start := len(a.dst)
	a.dst = append(a.dst, `,"rooms":{`...)
	any := false
	for _, sec := range sections {
		open := false
		for _, id := range a.n.order {
			r := a.n.rooms[id]
			if r.membership != sec.match && !(sec.match == auth.Leave && (r.membership == auth.Ban || r.membership == "")) {
				continue
			}
			mark := len(a.dst)
			if open {
				a.dst = append(a.dst, ',')
			} else {
				if any {
					a.dst = append(a.dst, ',')
				}
				a.dst = append(a.dst, '"')
				a.dst = append(a.dst, sec.name...)
				a.dst = append(a.dst, `":{`...)
			}
			if !a.room(r) {
				a.dst = a.dst[:mark]
				continue
			}
			open, any = true, true
		}
		if open {
			a.dst = append(a.dst, '}')
		}
	}
	if !any {
		a.dst = a.dst[:start]
		return false
	}
	a.dst = append(a.dst, '}')
	return true
}

// room writes one room; false means that there is nothing to say.
func (a *assembly) room(r *roomNews) bool {
	if r.membership == auth.Invite || r.membership == auth.Knock {
		a.dst = appendString(a.dst, string(r.id))
		a.dst = append(a.dst, `:{"`...)
		a.dst = append(a.dst, r.membership...)
		a.dst = append(a.dst, `_state":{"events":[`...)
		for i, e := range r.stripped {
			if i > 0 {
				a.dst = append(a.dst, ',')
			}
			a.dst = appendStripped(a.dst, e.Event)
		}
		a.dst = append(a.dst, `]}}`...)
		return true
	}
	ephemeral := a.ephemeral(r)
	data := a.roomData(r)
	state, have := a.roomState(r)
	if len(r.timeline)+len(state)+len(ephemeral)+len(data) == 0 && !r.newly && !r.recount && !r.limited && r.own == nil {
		return false
	}
	a.dst = appendString(a.dst, string(r.id))
	a.dst = append(a.dst, `:{"timeline":{"events":[`...)
	membership := auth.Join
	if r.newly || r.membership != auth.Join {
		membership = "" // it may have changed on the way
	}
	for i, it := range r.timeline {
		if i > 0 {
			a.dst = append(a.dst, ',')
		}
		a.event(it, membership)
	}
	a.dst = append(a.dst, `],"limited":`...)
	a.dst = strconv.AppendBool(a.dst, r.limited)
	a.dst = append(a.dst, `,"prev_batch":`...)
	a.dst = appendString(a.dst, Token{Pos: r.prevBatch}.String())
	a.dst = append(a.dst, '}')
	name := "state"
	if a.q.StateAfter != "" {
		name = a.q.StateAfter
	}
	a.open(name, state)
	if r.crowd > 0 && a.err == nil {
		a.err = a.crowd(r, have)
	}
	a.dst = append(a.dst, `]}`...)
	if len(data) > 0 {
		a.section("account_data", data)
	}
	if r.membership == auth.Join {
		if len(ephemeral) > 0 {
			a.section("ephemeral", ephemeral)
		}
		a.counts(r)
		a.summary(r)
	}
	a.dst = append(a.dst, '}')
	return true
}

// event writes one event, trimmed to the fields that the filter wants.
func (a *assembly) event(it *item, membership string) {
	if a.q.Filter == nil || a.q.Filter.EventFields == nil {
		a.dst = a.r.appendEvent(a.dst, it, membership)
		return
	}
	whole := a.r.appendEvent(nil, it, membership)
	trimmed, err := a.q.Filter.EventFields.Append(a.dst, whole)
	if err != nil {
		trimmed = append(a.dst, whole...)
	}
	a.dst = trimmed
}

func (a *assembly) section(name string, events [][]byte) {
	a.open(name, events)
	a.dst = append(a.dst, `]}`...)
}

// open is section without the end.
func (a *assembly) open(name string, events [][]byte) {
	a.dst = append(a.dst, ',')
	a.dst = appendString(a.dst, name)
	a.dst = append(a.dst, `:{"events":[`...)
	for i, e := range events {
		if i > 0 {
			a.dst = append(a.dst, ',')
		}
		a.dst = append(a.dst, e...)
	}
}

// roomState writes the events of the state section, each once. It tells which keys it has written.
func (a *assembly) roomState(r *roomNews) (out [][]byte, have map[string]int) {
	list := r.state
	for _, it := range r.dropped {
		list = append(list, it.Event)
	}
	if a.q.StateAfter != "" {
		for _, it := range r.timeline {
			if it.StateKey != nil {
				list = append(list, it.Event)
			}
		}
	}
	have = map[string]int{}
	var order []*storage.Event
	for _, e := range list {
		if !a.wantsState(r.id, e) {
			continue
		}
		k := e.Type + "\x00" + *e.StateKey
		if i, ok := have[k]; ok {
			order[i] = e
			continue
		}
		have[k] = len(order)
		order = append(order, e)
	}
	for user, e := range a.members[r.id] {
		if _, ok := have[typeMember+"\x00"+string(user)]; !ok && a.q.StateAfter == "" && !inTimeline(r, e) || !ok && a.q.StateAfter != "" {
			order = append(order, e)
		}
	}
	out = make([][]byte, len(order))
	for i, e := range order {
		out[i] = a.r.appendEvent(nil, newItem(e), "")
	}
	return out, have
}

func (a *assembly) wantsState(room matrix.RoomID, e *storage.Event) bool {
	if a.q.Filter == nil || a.q.Filter.Room.State == nil {
		return true
	}
	return a.q.Filter.Room.State.Room(room) && a.q.Filter.Room.State.Match(e.Type, string(e.Sender), false)
}

func inTimeline(r *roomNews, e *storage.Event) bool {
	for _, it := range r.timeline {
		if it.ID == e.ID {
			return true
		}
	}
	return false
}
