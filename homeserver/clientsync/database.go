package clientsync

import (
	"context"
	"maps"
	"slices"
	"sort"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/storage"
)

// fromDatabase answers a sync from one snapshot: a first one, an old token, a membership of the reader that changed.
func (s *Service) fromDatabase(ctx context.Context, q *Request, b *inbox, d *device) ([]byte, error) {
	n := &news{first: q.Since == nil, rooms: map[matrix.RoomID]*roomNews{}, devices: map[matrix.UserID]bool{}, left: map[matrix.UserID]bool{}}
	if q.Since != nil {
		n.since, n.ephSince = q.Since.Pos, q.Since.Ephemeral
	}
	n.ephUpto = s.Ephemeral.Version()
	err := s.DB.View(ctx, func(tx *storage.Tx) error {
		g := &gathering{s: s, tx: tx, q: q, n: n}
		return g.run()
	})
	if err != nil {
		return nil, err
	}
	s.Rooms.Warm(ctx, n.order)
	for id, r := range n.rooms {
		r.typing = r.membership == auth.Join && (r.newly || n.first && len(s.Ephemeral.Typing(id)) > 0)
	}
	for _, id := range s.Ephemeral.TypingSince(n.ephSince) {
		if r := n.rooms[id]; r != nil && r.membership == auth.Join {
			r.typing = true
		} else if r == nil && !n.first && b.isJoined(id) {
			r = n.room(id)
			r.membership, r.typing = auth.Join, true
			r.prevBatch = n.upto
		}
	}
	n.presence = s.Ephemeral.PresenceSince(n.ephSince)
	b.mu.Lock()
	clear(d.members)
	b.mu.Unlock()
	body, _, err := s.assemble(ctx, q, b, d, n)
	return body, err
}

func (b *inbox) isJoined(room matrix.RoomID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rooms[room] == auth.Join
}

// gathering is the reading of one snapshot. The number of queries does not grow with the number of rooms.
type gathering struct {
	s  *Service
	tx *storage.Tx
	q  *Request
	n  *news
	// joined, fresh, gone and asked are the rooms that the reader is in, has joined since, has left since, is invited to or knocks at.
	joined, fresh, gone, asked []storage.Member
}

func (g *gathering) run() (err error) {
	if g.n.upto, err = g.tx.Position(); err != nil {
		return err
	}
	if g.n.since > g.n.upto {
		return matrix.InvalidParam("The token is not of this server, or from before it was restored.")
	}
	steps := []func() error{g.memberships, g.remote, g.timelines, g.state, g.invites, g.leaves, g.receipts, g.accountData, g.toDevice, g.deviceLists}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

const (
	// maxSteps is how many changes of memberships are followed for all rooms at once, maxRenames how many are read of a room with more.
	maxSteps, maxRenames = 4, 2000
)

func ids(list ...[]storage.Member) []matrix.RoomID {
	var out []matrix.RoomID
	for _, l := range list {
		for _, m := range l {
			out = append(out, m.RoomID)
		}
	}
	return out
}

// timelines reads the newest events of the rooms that the reader is in.
func (g *gathering) timelines() error {
	limit := timelineLimit(g.q.Filter)
	since, err := g.tx.LoadTimelines(ids(g.joined), g.n.since, g.n.upto, limit)
	if err != nil {
		return err
	}
	from := int64(-1 << 62)
	if g.q.FullState && !g.n.first {
		from = g.n.since
	}
	fresh, err := g.tx.LoadTimelines(ids(g.fresh), from, g.n.upto, limit)
	if err != nil {
		return err
	}
	for _, m := range g.joined {
		r := g.n.room(m.RoomID)
		r.membership, r.recount = auth.Join, true
		g.timeline(r, since[m.RoomID], limit, true)
	}
	for _, m := range g.fresh {
		r := g.n.room(m.RoomID)
		r.membership, r.newly, r.recount, r.moved = auth.Join, true, true, true
		g.timeline(r, fresh[m.RoomID], limit, false)
		r.limited = r.limited || g.q.reopened[m.RoomID] // the client has some of it already
	}
	return g.visibility()
}

func (g *gathering) timeline(r *roomNews, events []*storage.Event, limit int, incremental bool) {
	r.prevBatch = g.n.upto
	if incremental {
		r.prevBatch = g.n.since
	}
	if len(events) > limit {
		events, r.limited = events[len(events)-limit:], true
	} else if !incremental && len(events) > 0 {
		r.limited = !events[0].Is(auth.TypeCreate, "")
	}
	items := newItems(events)
	if at := afterHole(items); at >= 0 {
		items, r.limited = items[at:], true
	}
	if len(items) > 0 {
		r.prevBatch = items[0].Pos - 1
	}
	r.timeline = filterTimeline(items, g.q.Filter, r.id)
}

// visibility leaves out of freshly joined rooms what was sent when the reader might not see it.
func (g *gathering) visibility() error {
	var all []*storage.Event
	for _, m := range g.fresh {
		for _, it := range g.n.rooms[m.RoomID].timeline {
			all = append(all, it.Event)
		}
	}
	seen, err := g.s.Visible(g.tx, g.q.User, all)
	if err != nil {
		return err
	}
	shown, err := g.s.erase(g.tx, g.q.User, all)
	if err != nil {
		return err
	}
	redacted := map[matrix.EventID]*storage.Event{}
	for i, e := range shown {
		if e != all[i] {
			redacted[e.ID] = e
		}
	}
	for _, m := range g.fresh {
		r := g.n.rooms[m.RoomID]
		kept := r.timeline[:0]
		for _, it := range r.timeline {
			if e := redacted[it.ID]; e != nil {
				it = newItem(e)
			}
			if seen[it.ID] {
				kept = append(kept, it)
			} else {
				r.limited = true
			}
		}
		r.timeline = kept
	}
	return nil
}

// state reads the state that goes with the timelines.
func (g *gathering) state() error {
	current, err := g.wholeState()
	if err != nil {
		return err
	}
	changes, err := g.tx.LoadStateChanges(ids(g.joined), g.n.since, g.n.upto)
	if err != nil {
		return err
	}
	var undo []matrix.EventID
	for _, id := range g.n.order {
		for _, it := range g.n.rooms[id].timeline {
			if it.StateKey != nil && it.Replaces != "" {
				undo = append(undo, it.Replaces)
			}
		}
	}
	replaced, err := g.tx.LoadEvents(undo)
	if err != nil {
		return err
	}
	if err := g.s.eraseIn(g.tx, g.q.User, g.n.rooms, replaced); err != nil {
		return err
	}
	for _, m := range g.fresh {
		r := g.n.rooms[m.RoomID]
		r.state = stateAtStart(current[m.RoomID], r.timeline, replaced, g.q.StateAfter != "", -1<<62)
	}
	for _, m := range g.joined {
		r := g.n.rooms[m.RoomID]
		r.state = stateAtStart(changes[m.RoomID], r.timeline, replaced, g.q.StateAfter != "", g.n.since)
		for _, e := range changes[m.RoomID] {
			if e.Type == typeMember && e.StateKey != nil {
				r.moved = true
				g.moved(e)
			}
		}
	}
	return nil
}

// wholeState reads the state of the rooms that are new, without memberships where these are loaded lazily or are a crowd.
func (g *gathering) wholeState() (map[matrix.RoomID][]*storage.Event, error) {
	rooms := ids(g.fresh)
	if lazyMembers(g.q) {
		return g.tx.LoadState(rooms, false)
	}
	crowds, err := g.tx.CountMemberships(rooms, maxMembers)
	if err != nil {
		return nil, err
	}
	large := slices.Collect(maps.Keys(crowds))
	state, err := g.tx.LoadState(slices.DeleteFunc(rooms, func(id matrix.RoomID) bool { return crowds[id] > 0 }), true)
	if err != nil || len(large) == 0 {
		return state, err
	}
	heads, err := g.tx.LoadRooms(large)
	if err != nil {
		return nil, err
	}
	for _, h := range heads {
		r := g.n.room(h.ID)
		r.crowd, r.root = crowds[h.ID], h.Head.StateRoot
	}
	rest, err := g.tx.LoadState(large, false)
	maps.Copy(state, rest)
	return state, err
}

func (g *gathering) moved(e *storage.Event) {
	who := matrix.UserID(*e.StateKey)
	if who == g.q.User {
		return
	}
	switch event.Membership(e.Event) {
	case auth.Join:
		g.n.devices[who] = true
		delete(g.n.left, who)
	case auth.Leave, auth.Ban:
		if !g.n.devices[who] {
			g.n.left[who] = true
		}
	}
}

// stateAtStart turns the state at the end of a timeline into that at its start, by undoing the timeline, and leaves out what was
// current at or before since. With after it is left as it is.
func stateAtStart(end []*storage.Event, timeline []*item, replaced map[matrix.EventID]*storage.Event, after bool, since int64) []*storage.Event {
	if after {
		return end
	}
	byKey := map[event.StateKey]*storage.Event{}
	for _, e := range end {
		byKey[e.Key()] = e
	}
	for i := len(timeline) - 1; i >= 0; i-- {
		it := timeline[i]
		if it.StateKey == nil {
			continue
		}
		if old := replaced[it.Replaces]; old != nil && old.Pos > since {
			byKey[it.Key()] = old
		} else {
			delete(byKey, it.Key())
		}
	}
	out := make([]*storage.Event, 0, len(byKey))
	for _, e := range byKey {
		out = append(out, e)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Pos < out[j].Pos })
	return out
}

// strippedTypes is the state that somebody may see of a room that they are invited to.
func strippedTypes() []string {
	return []string{auth.TypeCreate, "m.room.name", "m.room.avatar", "m.room.topic", "m.room.join_rules", "m.room.canonical_alias", "m.room.encryption"}
}

// invites reads stripped state for invitations and knocks.
func (g *gathering) invites() error {
	if len(g.asked) == 0 {
		return nil
	}
	state, err := g.tx.LoadStateTypes(ids(g.asked), strippedTypes())
	if err != nil {
		return err
	}
	users := []matrix.UserID{g.q.User}
	for _, m := range g.asked {
		users = append(users, m.Sender)
	}
	members, err := g.tx.LoadMemberEvents(ids(g.asked), users)
	if err != nil {
		return err
	}
	for _, m := range g.asked {
		r := g.n.room(m.RoomID)
		r.membership = m.Membership
		r.stripped = state[m.RoomID]
		for _, e := range members[m.RoomID] {
			if *e.StateKey == string(g.q.User) || *e.StateKey == string(m.Sender) {
				r.stripped = append(r.stripped, e)
			}
		}
	}
	return nil
}

func (g *gathering) receipts() error {
	all, err := g.tx.LoadReceipts(ids(g.fresh), 0, g.n.upto)
	if err != nil {
		return err
	}
	more, err := g.tx.LoadReceiptsOf(g.q.User, g.n.since, g.n.upto)
	if err != nil {
		return err
	}
	fresh := map[matrix.RoomID]bool{}
	for _, m := range g.fresh {
		fresh[m.RoomID] = true
	}
	for _, r := range all {
		n := g.n.room(r.RoomID)
		n.receipts = append(n.receipts, r)
	}
	for _, r := range more {
		if !fresh[r.RoomID] && !g.n.first {
			n := g.n.room(r.RoomID)
			if n.membership == "" {
				n.membership, n.prevBatch = auth.Join, g.n.upto
			}
			n.receipts = append(n.receipts, r)
			n.recount = true
		}
	}
	return nil
}

func (g *gathering) accountData() error {
	list, err := g.tx.LoadAccountData(g.q.User, g.n.since, g.n.upto)
	if err != nil {
		return err
	}
	fresh := map[matrix.RoomID]bool{}
	for _, m := range g.fresh {
		fresh[m.RoomID] = true
	}
	if len(g.fresh) > 0 && g.n.since > 0 {
		older, err := g.tx.LoadAccountData(g.q.User, 0, g.n.since)
		if err != nil {
			return err
		}
		for _, d := range older {
			if fresh[d.RoomID] || g.q.FullState && d.RoomID == "" {
				list = append(list, d)
			}
		}
	}
	for _, d := range list {
		if d.RoomID == "" {
			g.n.data = append(g.n.data, d)
		} else if r := g.n.rooms[d.RoomID]; r != nil {
			r.data = append(r.data, d)
		} else if !g.n.first && (g.q.Filter == nil || g.q.Filter.Room.Room(d.RoomID)) {
			m, ok, err := g.tx.FindMember(d.RoomID, g.q.User) // one a room whose data changed and nothing else
			if err != nil {
				return err
			}
			if ok && m.Membership == auth.Join {
				r := g.n.room(d.RoomID)
				r.membership, r.prevBatch, r.data = auth.Join, g.n.upto, append(r.data, d)
			}
		}
	}
	return nil
}

func (g *gathering) toDevice() (err error) {
	after := int64(0)
	if g.q.Since != nil {
		after = g.q.Since.toDevice()
	}
	g.n.toDevice, err = g.tx.LoadToDevice(g.q.User, g.q.Device, after, g.n.upto, toDeviceMax+1)
	return err
}

// deviceLists finds whose devices changed among those who share a room with the reader. A first sync tells none.
func (g *gathering) deviceLists() error {
	if g.n.first {
		return nil
	}
	changed, err := g.tx.LoadSharedDeviceChanges(g.q.User, g.n.since, g.n.upto)
	if err != nil {
		return err
	}
	for _, u := range changed {
		g.n.devices[u] = true
	}
	for _, m := range g.fresh {
		if g.q.FullState && m.Pos <= g.n.since {
			continue
		}
		joined, err := g.tx.LoadJoinedUsers(m.RoomID)
		if err != nil {
			return err
		}
		for _, u := range joined {
			if u != g.q.User {
				g.n.devices[u] = true
			}
		}
	}
	return nil
}

func lazyMembers(q *Request) bool {
	return q.Filter != nil && q.Filter.Room.State != nil && q.Filter.Room.State.LazyLoadMembers
}
