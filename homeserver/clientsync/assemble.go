package clientsync

import (
	"context"
	"maps"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

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
}

func (a *assembly) estimate() int {
	size := 1024
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
		for u := range list {
			if !a.contacts.May(a.ctx, u) {
				delete(list, u)
			}
		}
	}
	return nil
}

// people lists everybody of whom the response would tell.
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
	for _, list := range []map[matrix.UserID]bool{a.n.devices, a.n.left} {
		for u := range list {
			seen[u] = true
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
	state := a.roomState(r)
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
	a.section(name, state)
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
	a.dst = append(a.dst, ',')
	a.dst = appendString(a.dst, name)
	a.dst = append(a.dst, `:{"events":[`...)
	for i, e := range events {
		if i > 0 {
			a.dst = append(a.dst, ',')
		}
		a.dst = append(a.dst, e...)
	}
	a.dst = append(a.dst, `]}`...)
}

// roomState writes the events of the state section, each once.
func (a *assembly) roomState(r *roomNews) [][]byte {
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
	have := map[string]int{}
	var order []*storage.Event
	for _, e := range list {
		if a.q.Filter != nil && a.q.Filter.Room.State != nil &&
			(!a.q.Filter.Room.State.Room(r.id) || !a.q.Filter.Room.State.Match(e.Type, string(e.Sender), false)) {
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
	out := make([][]byte, len(order))
	for i, e := range order {
		out[i] = a.r.appendEvent(nil, newItem(e), "")
	}
	return out
}

func inTimeline(r *roomNews, e *storage.Event) bool {
	for _, it := range r.timeline {
		if it.ID == e.ID {
			return true
		}
	}
	return false
}

func (a *assembly) counts(r *roomNews) {
	if r.notify == nil {
		return
	}
	threads := a.q.Filter != nil && a.q.Filter.Room.Timeline != nil && a.q.Filter.Room.Timeline.UnreadThreadNotifications
	a.b.mu.Lock()
	t := r.notify.total()
	if threads {
		t = r.notify.main
	}
	a.dst = appendTally(append(a.dst, `,"unread_notifications":`...), t)
	if threads {
		a.dst = append(a.dst, `,"unread_thread_notifications":{`...)
		first := true
		for root, th := range r.notify.threads {
			if !first {
				a.dst = append(a.dst, ',')
			}
			first = false
			a.dst = appendTally(append(appendString(a.dst, string(root)), ':'), *th)
		}
		a.dst = append(a.dst, '}')
	}
	a.b.mu.Unlock()
}

func appendTally(dst []byte, t tally) []byte {
	dst = append(dst, `{"highlight_count":`...)
	dst = strconv.AppendInt(dst, int64(t.highlight), 10)
	dst = append(dst, `,"notification_count":`...)
	dst = strconv.AppendInt(dst, int64(t.notify), 10)
	return append(dst, '}')
}

func (a *assembly) roomData(r *roomNews) (out [][]byte) {
	for i := range r.data {
		if d := &r.data[i]; a.q.Filter == nil || a.q.Filter.Room.AccountData == nil || a.q.Filter.Room.AccountData.Room(r.id) && a.q.Filter.Room.AccountData.MatchType(d.Type) {
			out = append(out, appendData(nil, d.Type, d.Content))
		}
	}
	return out
}

func appendData(dst []byte, typ string, content []byte) []byte {
	dst = append(dst, `{"content":`...)
	dst = append(dst, content...)
	dst = append(dst, `,"type":`...)
	dst = appendString(dst, typ)
	return append(dst, '}')
}

// ephemeral writes typing and receipts of a room.
func (a *assembly) ephemeral(r *roomNews) (out [][]byte) {
	if r.membership != auth.Join {
		return nil
	}
	wants := func(typ string) bool {
		return a.q.Filter == nil || a.q.Filter.Room.Ephemeral == nil || a.q.Filter.Room.Ephemeral.Room(r.id) && a.q.Filter.Room.Ephemeral.MatchType(typ)
	}
	if r.typing && wants("m.typing") {
		users := []string{}
		for _, u := range a.s.Ephemeral.Typing(r.id) {
			if a.contacts.May(a.ctx, u) && !a.ignored[u] {
				users = append(users, string(u))
			}
		}
		out = append(out, appendData(nil, "m.typing", mustJSON(map[string]any{"user_ids": users})))
	}
	if len(r.receipts) > 0 && wants("m.receipt") {
		content := map[matrix.EventID]map[string]map[matrix.UserID]map[string]any{}
		for _, p := range r.receipts {
			e := content[p.EventID]
			if e == nil {
				e = map[string]map[matrix.UserID]map[string]any{}
				content[p.EventID] = e
			}
			if e[p.Type] == nil {
				e[p.Type] = map[matrix.UserID]map[string]any{}
			}
			v := map[string]any{"ts": p.TS}
			if p.ThreadID != "" {
				v["thread_id"] = p.ThreadID
			}
			e[p.Type][p.UserID] = v
		}
		out = append(out, appendData(nil, "m.receipt", mustJSON(content)))
	}
	return out
}

// mustJSON encodes values of our own making.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		panic("clientsync: value of our own making: " + err.Error())
	}
	return b
}

func (a *assembly) accountData() bool {
	var out [][]byte
	rules := a.n.first || a.q.FullState
	for i := range a.n.data {
		d := &a.n.data[i]
		if a.q.Filter == nil || a.q.Filter.AccountData.MatchType(d.Type) {
			out = append(out, appendData(nil, d.Type, d.Content))
		}
		rules = rules && d.Type != "m.push_rules"
	}
	if rules && (a.q.Filter == nil || a.q.Filter.AccountData.MatchType("m.push_rules")) {
		if c, err := a.s.Push.Content(a.ctx, a.q.User); err == nil {
			out = append(out, appendData(nil, "m.push_rules", c))
		}
	}
	if len(out) == 0 {
		return false
	}
	a.section("account_data", out)
	return true
}

func (a *assembly) presence() bool {
	var out [][]byte
	for _, u := range a.n.presence {
		if u != a.q.User && (a.q.Filter == nil || a.q.Filter.Presence.Match("m.presence", string(u), false)) && a.shares(u) && a.s.Ephemeral.MayRead(a.ctx, a.q.Party, u) {
			if c := a.s.Ephemeral.Presence(u); c != nil {
				e := append([]byte(`{"content":`), c...)
				e = append(e, `,"sender":`...)
				e = appendString(e, string(u))
				out = append(out, append(e, `,"type":"m.presence"}`...))
			}
		}
	}
	if len(out) == 0 {
		return false
	}
	a.section("presence", out)
	return true
}

// shares tells whether a user is in a room that the reader is in.
func (a *assembly) shares(u matrix.UserID) bool {
	a.b.mu.Lock()
	rooms := make([]matrix.RoomID, 0, len(a.b.rooms))
	for id, m := range a.b.rooms {
		if m == auth.Join {
			rooms = append(rooms, id)
		}
	}
	a.b.mu.Unlock()
	for _, id := range rooms {
		if a.s.isMember(a.ctx, id, u) {
			return true
		}
	}
	return false
}

func (a *assembly) toDevice() bool {
	var out [][]byte
	for i := range a.n.toDevice {
		m := &a.n.toDevice[i]
		if !a.contacts.May(a.ctx, m.Sender) { // queued before policy parted them; it goes with the next acknowledgement
			continue
		}
		e := append([]byte(`{"content":`), m.Content...)
		e = append(e, `,"sender":`...)
		e = appendString(e, string(m.Sender))
		e = append(e, `,"type":`...)
		e = appendString(e, m.Type)
		out = append(out, append(e, '}'))
	}
	if len(out) == 0 {
		return false
	}
	a.section("to_device", out)
	return true
}

func (a *assembly) deviceLists() bool {
	if a.n.first {
		return false
	}
	var changed, left []string
	for u := range a.n.devices {
		changed = append(changed, string(u))
	}
	for u := range a.n.left {
		if !a.n.devices[u] && !a.shares(u) {
			left = append(left, string(u))
		}
	}
	if len(changed)+len(left) == 0 {
		return false
	}
	slices.Sort(changed)
	slices.Sort(left)
	lists := map[string][]string{}
	if changed != nil {
		lists["changed"] = changed
	}
	if left != nil {
		lists["left"] = left
	}
	a.dst = append(a.dst, `,"device_lists":`...)
	a.dst = append(a.dst, mustJSON(lists)...)
	return true
}

// keyCounts writes how many keys the device has in store, and reports whether that is news.
func (a *assembly) keyCounts() (bool, error) {
	counts, unused, err := a.s.Keys.Counts(a.ctx, a.q.User, a.q.Device)
	if err != nil {
		return false, err
	}
	text := make([]byte, 0, 160)
	text = append(text, `,"device_one_time_keys_count":{`...)
	for i, alg := range slices.Sorted(maps.Keys(counts)) {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(appendString(text, alg), ':')
		text = strconv.AppendInt(text, int64(counts[alg]), 10)
	}
	text = append(text, `},"device_unused_fallback_key_types":[`...)
	for i, alg := range unused {
		if i > 0 {
			text = append(text, ',')
		}
		text = appendString(text, alg)
	}
	text = append(text, ']')
	a.dst = append(a.dst, text...)
	a.b.mu.Lock()
	defer a.b.mu.Unlock()
	news := a.d.sentKeys != "" && a.d.sentKeys != string(text)
	a.d.sentKeys = string(text)
	return news, nil
}
