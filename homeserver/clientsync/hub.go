package clientsync

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/storage"
)

const (
	// inboxMax is how many entries an inbox keeps; a reader who is further behind reads from the database.
	inboxMax = 2048
	// onlineFor is how long an inbox stays after its last reader has gone.
	onlineFor = 2 * time.Minute
)

// hub reads the log once per node and puts each entry into the inboxes of the online users whom it concerns.
//
// Lock order: hub.mu, then inbox.mu.
type hub struct {
	s  *Service
	mu sync.Mutex
	// pos is how far the log was read. It and what follows are guarded by mu.
	pos     int64
	online  map[matrix.UserID]*inbox
	byRoom  map[matrix.RoomID]map[*inbox]struct{} // who is joined there
	started chan struct{}
	start   sync.Once // closes started
	// lastTurn is the last position at which memberships have changed without an event: inboxes are made of what was read at it or later.
	lastTurn int64
	// progress is closed and replaced whenever pos grows.
	progress chan struct{}
}

// newHub makes a hub that reads the log from where it is now: what the caches read from now on may be as old as that.
func newHub(s *Service) *hub {
	return &hub{s: s, pos: s.Stream.Position(), online: map[matrix.UserID]*inbox{}, byRoom: map[matrix.RoomID]map[*inbox]struct{}{}, started: make(chan struct{}), progress: make(chan struct{})}
}

func (h *hub) run(ctx context.Context) error {
	h.start.Do(func() { close(h.started) })
	lastSweep := h.s.Now()
	var watch sync.WaitGroup
	defer watch.Wait()
	watch.Go(func() {
		_ = h.s.Stream.Keep(ctx, "sync.ephemeral", h.watchEphemeral) // it has no errors
	})
	for {
		wctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := h.s.Stream.Wait(wctx, h.pos)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			entries, upto, rerr := h.s.Stream.Read(ctx, h.pos)
			if rerr != nil {
				h.s.log.WithError(rerr).Warn("the log could not be read; trying again")
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(50 * time.Millisecond):
				}
				continue
			}
			sharing, rerr := h.sharing(ctx, entries)
			var turned *turned
			if rerr == nil {
				turned, rerr = h.turned(ctx, entries)
			}
			if rerr != nil { // a change of devices, or of who is in a room, that is not told now would never be
				h.s.log.WithError(rerr).Warn("the rooms of users could not be read; trying again")
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(50 * time.Millisecond):
				}
				continue
			}
			h.s.Rooms.Refresh(entries)
			h.dispatch(entries, upto, sharing, turned)
		}
		if now := h.s.Now(); now.Sub(lastSweep) > 30*time.Second {
			lastSweep = now
			h.sweep(now)
		}
	}
}

// watchEphemeral wakes everybody online when typing or presence changed.
func (h *hub) watchEphemeral(ctx context.Context) error {
	for {
		changed := h.s.Ephemeral.Changed()
		policy := h.s.Policy.Changed()
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-policy:
		}
		select { // changes come in flocks: one look for all of them
		case <-ctx.Done():
			return nil
		case <-time.After(50 * time.Millisecond):
		}
		h.mu.Lock()
		for _, b := range h.online {
			b.signal()
		}
		h.mu.Unlock()
	}
}

func (h *hub) dispatch(entries []storage.Entry, upto int64, sharing map[matrix.UserID][]matrix.RoomID, turned *turned) {
	h.mu.Lock()
	defer h.mu.Unlock()
	woken := map[*inbox]struct{}{}
	for i := range entries {
		e := &entries[i]
		switch e.Kind {
		case storage.KindEvent:
			h.event(e, woken)
		case storage.KindReceipt:
			for b := range h.byRoom[e.RoomID] {
				b.put(delivery{pos: e.Pos, entry: e}, woken)
			}
		case storage.KindAccountData, storage.KindToDevice:
			if e.Data != nil && e.Data.Type == "m.push_rules" {
				h.s.Push.Invalidate(e.UserID)
			}
			if b := h.online[e.UserID]; b != nil {
				b.put(delivery{pos: e.Pos, entry: e}, woken)
				if e.Data != nil {
					b.accountData(e.Data)
				}
			}
		case storage.KindDeviceList:
			for _, room := range sharing[e.UserID] {
				for b := range h.byRoom[room] {
					b.put(delivery{pos: e.Pos, entry: e}, woken)
				}
			}
			if b := h.online[e.UserID]; b != nil {
				b.put(delivery{pos: e.Pos, entry: e}, woken)
			}
		case storage.KindNotice:
			h.notice(e, turned, woken)
		}
	}
	h.pos = upto
	close(h.progress)
	h.progress = make(chan struct{})
	for b := range woken {
		b.signal()
	}
}

// event brings an event to those who are in the room, and follows memberships. h.mu is held.
func (h *hub) event(e *storage.Entry, woken map[*inbox]struct{}) {
	if e.Event.Flags.Hidden() {
		return
	}
	listeners := h.byRoom[e.RoomID]
	var target *inbox
	if e.Event.StateKey != nil && e.Event.Type == typeMember {
		if m := event.Membership(e.Event.Event); m == auth.Leave || m == auth.Ban {
			h.s.Ephemeral.StopTyping(e.RoomID, matrix.UserID(*e.Event.StateKey))
		}
		target = h.online[matrix.UserID(*e.Event.StateKey)]
	}
	if len(listeners) == 0 && target == nil {
		return
	}
	it := newItem(e.Event)
	for b := range listeners {
		if b != target {
			b.put(delivery{pos: e.Pos, item: it, entry: e}, woken)
		}
	}
	if target != nil {
		target.mu.Lock()
		was := target.rooms[e.RoomID]
		target.mu.Unlock()
		target.put(delivery{pos: e.Pos, item: it, was: was, own: true, entry: e}, woken)
		h.moved(target, e.RoomID, event.Membership(e.Event.Event))
	}
}

// moved follows a user's own membership. h.mu is held.
func (h *hub) moved(b *inbox, room matrix.RoomID, membership string) {
	b.mu.Lock()
	if membership == auth.Leave || membership == auth.Ban || membership == "" {
		delete(b.rooms, room)
		delete(b.counts, room)
	} else {
		b.rooms[room] = membership
	}
	b.mu.Unlock()
	if membership == auth.Join {
		h.listen(b, room)
	} else if l := h.byRoom[room]; l != nil {
		delete(l, b)
		if len(l) == 0 {
			delete(h.byRoom, room)
		}
	}
}

func (h *hub) listen(b *inbox, room matrix.RoomID) {
	l := h.byRoom[room]
	if l == nil {
		l = map[*inbox]struct{}{}
		h.byRoom[room] = l
	}
	l[b] = struct{}{}
}

// notice deals with changes of facts that what is in memory depends on. h.mu is held.
func (h *hub) notice(e *storage.Entry, turned *turned, woken map[*inbox]struct{}) {
	switch e.Name {
	case storage.NoticeSession, storage.NoticeParty:
		user := matrix.UserID(e.Ref)
		h.s.Forget(user)
		h.s.Rooms.ForgetParty(user)
		if b := h.online[user]; b != nil {
			woken[b] = struct{}{}
		}
	case storage.NoticeSignatures: // the signer's devices must ask for the signed keys again
		if b := h.online[matrix.UserID(e.Ref)]; b != nil {
			b.put(delivery{pos: e.Pos, entry: e}, woken)
		}
	case storage.NoticeRemoteMember: // an invitation into a room that this deployment is not in
		if b := h.online[matrix.UserID(e.Ref)]; b != nil {
			b.put(delivery{pos: e.Pos, entry: e}, woken)
		}
	case storage.NoticeOneTimeKeys: // a device learns at once that its keys run out
		if b := h.online[matrix.UserID(e.Ref)]; b != nil {
			woken[b] = struct{}{}
		}
	case storage.NoticeState:
		for b := range h.byRoom[matrix.RoomID(e.Ref)] {
			b.put(delivery{pos: e.Pos, entry: e}, woken)
		}
		h.turn(e, turned, woken)
	}
}

// turned is who of those who are online is what in rooms whose state has changed by more than their events say.
type turned struct {
	asked   []*inbox
	members map[matrix.RoomID]map[matrix.UserID]*storage.Member
}

// turned finds that out, before the hub is locked.
func (h *hub) turned(ctx context.Context, entries []storage.Entry) (*turned, error) {
	t := &turned{members: map[matrix.RoomID]map[matrix.UserID]*storage.Member{}}
	last := int64(0)
	for i := range entries {
		if e := &entries[i]; e.Kind == storage.KindNotice && e.Name == storage.NoticeState {
			t.members[matrix.RoomID(e.Ref)], last = map[matrix.UserID]*storage.Member{}, e.Pos
		}
	}
	if last == 0 {
		return t, nil
	}
	h.mu.Lock()
	h.lastTurn = max(h.lastTurn, last) // who comes online from now on reads it, too
	t.asked = slices.Collect(maps.Values(h.online))
	h.mu.Unlock()
	users := make([]matrix.UserID, len(t.asked))
	for i, b := range t.asked {
		users[i] = b.user
	}
	err := h.s.DB.Read(ctx, func(tx *storage.Tx) error {
		list, err := tx.LoadMembersOf(slices.Collect(maps.Keys(t.members)), users)
		for i := range list {
			t.members[list[i].RoomID][list[i].UserID] = &list[i]
		}
		return err
	})
	return t, err
}

// turn follows the memberships of a room that have changed without an event. One that has changed later, too, is none until then: what comes later
// says what it is. h.mu is held.
func (h *hub) turn(e *storage.Entry, t *turned, woken map[*inbox]struct{}) {
	room := matrix.RoomID(e.Ref)
	for _, b := range t.asked {
		membership := ""
		if m := t.members[room][b.user]; m != nil && m.Pos <= e.Pos && (m.Membership == auth.Join || m.Membership == auth.Invite || m.Membership == auth.Knock) {
			membership = m.Membership
		}
		b.mu.Lock()
		was := b.rooms[room]
		b.mu.Unlock()
		if was != membership && h.online[b.user] == b {
			h.moved(b, room, membership)
			b.put(delivery{pos: e.Pos, entry: e}, woken)
		}
	}
}

// sharing finds the rooms of users whose devices changed, before the hub is locked.
func (h *hub) sharing(ctx context.Context, entries []storage.Entry) (map[matrix.UserID][]matrix.RoomID, error) {
	var users []matrix.UserID
	for i := range entries {
		if entries[i].Kind == storage.KindDeviceList {
			users = append(users, entries[i].UserID)
		}
	}
	if len(users) == 0 {
		return nil, nil
	}
	out := map[matrix.UserID][]matrix.RoomID{}
	err := h.s.DB.Read(ctx, func(tx *storage.Tx) error {
		list, err := tx.LoadUsersRooms(users)
		for _, m := range list {
			if m.Membership == auth.Join {
				out[m.UserID] = append(out[m.UserID], m.RoomID)
			}
		}
		return err
	})
	return out, err
}

// position is how far the log was read.
func (h *hub) position() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pos
}

// reach waits until the log was read up to a position, so that whoever has written sees it in the next look.
func (h *hub) reach(ctx context.Context, pos int64) error {
	for {
		h.mu.Lock()
		at, progress := h.pos, h.progress
		h.mu.Unlock()
		if at >= pos {
			return nil
		}
		select {
		case <-progress:
		case <-h.s.stop:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sweep lets inboxes go that nobody has read for a while.
func (h *hub) sweep(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for user, b := range h.online {
		b.mu.Lock()
		gone := b.readers == 0 && now.Sub(b.idle) > onlineFor
		var rooms []matrix.RoomID
		if gone {
			for r := range b.rooms {
				rooms = append(rooms, r)
			}
		}
		b.mu.Unlock()
		if !gone {
			continue
		}
		delete(h.online, user)
		for _, r := range rooms {
			if l := h.byRoom[r]; l != nil {
				delete(l, b)
				if len(l) == 0 {
					delete(h.byRoom, r)
				}
			}
		}
	}
}

// enter returns a user's inbox, making it when the user comes online. The caller leaves when done.
func (h *hub) enter(ctx context.Context, user matrix.UserID) (*inbox, error) {
	select {
	case <-h.started:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	h.mu.Lock()
	if b := h.online[user]; b != nil {
		b.enter()
		h.mu.Unlock()
		return b, nil
	}
	h.mu.Unlock()
	for {
		b, at, err := h.read(ctx, user)
		if err != nil {
			return nil, err
		}
		if b, err = h.register(ctx, b, at); b != nil || err != nil {
			return b, err
		}
	}
}

// read makes the inbox of a user, as of a position.
func (h *hub) read(ctx context.Context, user matrix.UserID) (b *inbox, at int64, err error) {
	b = &inbox{user: user, changed: make(chan struct{}), rooms: map[matrix.RoomID]string{}, ignored: map[matrix.UserID]bool{},
		counts: map[matrix.RoomID]*unread{}, devices: map[matrix.DeviceID]*device{}}
	err = h.s.DB.View(ctx, func(tx *storage.Tx) (err error) {
		if at, err = tx.Position(); err != nil {
			return err
		}
		list, err := tx.LoadUserRooms(user)
		if err != nil {
			return err
		}
		for _, m := range list {
			if m.Membership == auth.Join || m.Membership == auth.Invite || m.Membership == auth.Knock {
				b.rooms[m.RoomID] = m.Membership
			}
		}
		d, err := tx.LoadAccountDatum(user, "", "m.ignored_user_list")
		if err == nil {
			b.accountData(&d)
		} else if err == storage.ErrNotFound {
			err = nil
		}
		return err
	})
	return b, at, err
}

// register puts an inbox that is right as of position at into the hub. What the hub read after that is caught up from the stream. It returns nil
// where the inbox has to be read again.
func (h *hub) register(ctx context.Context, b *inbox, at int64) (*inbox, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if other := h.online[b.user]; other != nil {
		other.enter()
		return other, nil
	}
	if at < h.lastTurn {
		return nil, nil
	}
	b.floor, b.upto = max(at, h.pos), max(at, h.pos)
	if at < h.pos {
		entries, _, err := h.s.Stream.Read(ctx, at)
		if err != nil {
			return nil, err
		}
		for i := range entries {
			if e := &entries[i]; e.Pos <= h.pos && e.Kind == storage.KindEvent && e.Event.Is(typeMember, string(b.user)) && !e.Event.Flags.Hidden() {
				if m := event.Membership(e.Event.Event); m == auth.Leave || m == auth.Ban {
					delete(b.rooms, e.RoomID)
				} else {
					b.rooms[e.RoomID] = m
				}
			}
		}
	}
	h.online[b.user] = b
	for room, m := range b.rooms {
		if m == auth.Join {
			h.listen(b, room)
		}
	}
	b.enter()
	return b, nil
}
