package room

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/sirupsen/logrus"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/storage"
	"hansa/storage/statemap"
)

// Adoption is the answer to a send_join: how a tenant of ours enters a room that another server has told it about.
type Adoption struct {
	RoomID  matrix.RoomID
	Version string
	// As is the tenant whose user joins, Via the server that answered.
	As, Via matrix.ServerName
	// Event is the join, State the state before it, Auth the auth chains of both. They are as they came.
	Event       []byte
	State, Auth [][]byte
}

// adoption is the work of one Adopt.
type adoption struct {
	Adoption
	s       *Service
	ctx     context.Context // of the call
	version *matrix.RoomVersion
	join    *event.Event
	create  *event.Event
	// chain holds what is right, state or not, each after those that authorise it; state the events of the state by key.
	chain []*storage.Event
	byID  map[matrix.EventID]*storage.Event
	state map[event.StateKey]*storage.Event
	rules ruleCache
}

// unfit is the answer where a server has told of a room in a way that it cannot be entered.
func unfit(format string, args ...any) error {
	return matrix.Errorf(http.StatusBadGateway, matrix.CodeUnknown, "The other server's answer to the join cannot be used: "+format, args...)
}

// Adopt enters a room by what another server answered to send_join. Every event is verified; one that is not right is left out, but
// a room whose create event, power levels or join rules are missing or wrong, or whose state leaves out what its own auth
// chain speaks of, is refused (502, nothing stored), as is one with the ID of another room. Policy is asked before anything is stored
// (403). The room, its state and the join become durable in one commit, and the join is the first event of the timeline. A room that is known
// and that nobody of ours was left in is entered anew; where somebody of ours is in it, the join is taken in like any event.
//
// spec: server-server-api#joining-rooms
func (s *Service) Adopt(ctx context.Context, in Adoption) error {
	v, ok := matrix.FindRoomVersion(in.Version)
	if !ok {
		return matrix.Errorf(http.StatusBadRequest, matrix.CodeUnsupportedRoomVersion, "Room version %.32q is not supported.", in.Version)
	}
	if len(in.State)+len(in.Auth) > maxState {
		return unfit("it has %d events.", len(in.State)+len(in.Auth))
	}
	a := &adoption{Adoption: in, s: s, ctx: ctx, version: v, byID: map[matrix.EventID]*storage.Event{}, state: map[event.StateKey]*storage.Event{}}
	// What has been read is let go of; in is not looked at again.
	a.State, a.Auth = slices.Clone(in.State), slices.Clone(in.Auth)
	if err := a.read(); err != nil {
		return err
	}
	list := make([]*event.Event, 0, len(a.state))
	for _, e := range a.state {
		list = append(list, e.Event)
	}
	if err := s.MayAdopt(ctx, a.join.Sender, v, in.RoomID, list); err != nil {
		return err
	}
	for try := 1; ; try++ {
		err := a.enter()
		if try < maxTries && (errors.Is(err, storage.ErrConflict) || errors.Is(err, storage.ErrDuplicate)) {
			continue
		}
		return unavailable(err)
	}
}

// read verifies the answer.
func (a *adoption) read() error {
	s := a.s
	join, err := s.parse(a.ctx, a.version, a.RoomID, a.Event, event.ParseOptions{})
	if err != nil {
		return unfit("the join is not right: %v.", err)
	}
	if a.join = join; join.Sender.Server() != a.As || !join.Is(typeMember, string(join.Sender)) || event.Membership(join) != auth.Join {
		return unfit("the event is not the join.")
	}
	state := make(map[matrix.EventID]bool, len(a.State))
	events := make([]*event.Event, 0, len(a.State)+len(a.Auth))
	bad := 0
	for i, raw := range [][][]byte{a.State, a.Auth} {
		for chunk := range slices.Chunk(raw, 4*outlierChunk) {
			if err := a.ctx.Err(); err != nil {
				return err
			}
			parsed, errs := s.parseAll(a.ctx, a.Via, a.version, a.RoomID, chunk, event.ParseOptions{})
			for k, e := range parsed {
				chunk[k] = nil // the event holds what matters of it
				if errs[k] != nil || e.StateKey == nil {
					bad++
					continue
				}
				events = append(events, e)
				state[e.ID] = state[e.ID] || i == 0
			}
		}
	}
	if err := a.ctx.Err(); err != nil {
		return err
	}
	a.State, a.Auth = nil, nil
	if err := a.findCreate(events); err != nil {
		return err
	}
	a.judge(events, state)
	if err := a.check(); err != nil {
		s.log.WithError(err).WithFields(logrus.Fields{"room_id": a.RoomID, "origin": a.Via}).Warn("the answer to a join was refused")
		return err
	}
	if n := bad + len(events) - len(a.chain); n > 0 {
		s.log.WithFields(logrus.Fields{"room_id": a.RoomID, "origin": a.Via}).Debugf("%d events of the answer to a join are doubled or not right", n)
	}
	return nil
}

// findCreate finds the create event of the room. There must be one, of the version that was agreed.
func (a *adoption) findCreate(events []*event.Event) error {
	for _, e := range events {
		if !e.Is(auth.TypeCreate, "") || a.create != nil && a.create.ID == e.ID {
			continue
		}
		if a.create != nil {
			return unfit("there are two create events.")
		}
		a.create = e
	}
	if a.create == nil {
		return unfit("there is no create event.")
	}
	version, ok := event.ContentString(a.create, "room_version")
	if !ok {
		version = "1"
	}
	if version != a.version.ID {
		return unfit("the room has version %.32q and not %s.", version, a.version.ID)
	}
	if err := auth.CheckCreate(a.create); err != nil {
		return unfit("the create event is not right: %v.", err)
	}
	return nil
}

// judge keeps those events that their auth events allow, and rejected ones as such.
func (a *adoption) judge(events []*event.Event, state map[matrix.EventID]bool) {
	list := make([]*arrival, 0, len(events))
	for _, e := range events {
		list = append(list, &arrival{e: e})
	}
	doubled := map[event.StateKey]bool{}
	for _, in := range inOrder(list) {
		e := in.e
		if a.byID[e.ID] != nil {
			continue
		}
		se, ok := a.one(e)
		if !ok {
			continue
		}
		a.byID[e.ID] = se
		a.chain = append(a.chain, se)
		if !state[e.ID] || se.Flags&storage.Rejected != 0 {
			continue
		}
		if k := e.Key(); a.state[k] != nil {
			doubled[k] = true
		} else {
			a.state[k] = se
		}
	}
	for k := range doubled { // which of them counts is anybody's guess
		delete(a.state, k)
	}
}

// one judges an event by its auth events. It reports false where one of them is missing.
func (a *adoption) one(e *event.Event) (*storage.Event, bool) {
	se := &storage.Event{Event: e, Flags: storage.Outlier}
	cited := make([]*event.Event, 0, len(e.AuthEvents))
	byKey := make(map[event.StateKey]*event.Event, len(e.AuthEvents))
	for _, id := range e.AuthEvents {
		c := a.byID[id]
		if c == nil {
			return nil, false
		}
		cited = append(cited, c.Event)
		byKey[c.Key()] = c.Event
		se.AuthRank = max(se.AuthRank, c.AuthRank+1)
	}
	err := auth.CheckAuthEvents(e, cited, func(id matrix.EventID) bool { c := a.byID[id]; return c != nil && c.Flags&storage.Rejected != 0 })
	if err == nil {
		err = a.rules.check(a.create, e, func(k event.StateKey) *event.Event { return byKey[k] })
	}
	if err != nil {
		se.Flags |= storage.Rejected
	}
	return se, true
}

// check tells whether the state is one that a room can have. State is never unset, so whatever the auth chain speaks of must
// have an entry: a state without it is a part of the truth at best.
func (a *adoption) check() error {
	if c := a.state[event.StateKey{Type: auth.TypeCreate}]; c == nil || c.ID != a.create.ID {
		return unfit("its state has no create event.")
	}
	members, missing := 0, 0
	for _, e := range a.chain {
		if e.Flags&storage.Rejected != 0 {
			continue
		}
		k := e.Key()
		if k.Type == typeMember {
			members++
		}
		if a.state[k] != nil {
			continue
		}
		switch {
		case k.Key == "" && (k.Type == "m.room.power_levels" || k.Type == "m.room.join_rules"):
			return unfit("its state has no %s, although its auth chain has.", k.Type)
		case k.Type == typeMember:
			missing++
		}
	}
	if 2*missing > members {
		return unfit("its state leaves out %d of %d members that its auth chain names.", missing, members)
	}
	for _, id := range a.join.AuthEvents {
		e := a.byID[id]
		if e == nil {
			return unfit("the auth events of the join are not among its events.")
		}
		if e.Flags&storage.Rejected != 0 {
			return unfit("an auth event of the join is not right.")
		}
	}
	cited := make([]*event.Event, 0, len(a.join.AuthEvents))
	byKey := map[event.StateKey]*event.Event{}
	for _, id := range a.join.AuthEvents {
		cited = append(cited, a.byID[id].Event)
		byKey[a.byID[id].Key()] = a.byID[id].Event
	}
	if err := auth.CheckAuthEvents(a.join, cited, func(matrix.EventID) bool { return false }); err != nil {
		return unfit("the auth events of the join are not right: %v.", err)
	}
	for _, find := range []func(event.StateKey) *event.Event{
		func(k event.StateKey) *event.Event { return byKey[k] },
		func(k event.StateKey) *event.Event {
			if e := a.state[k]; e != nil {
				return e.Event
			}
			return nil
		},
	} {
		if err := a.rules.check(a.create, a.join, find); err != nil {
			return unfit("the room does not allow the join: %v.", err)
		}
	}
	return nil
}

// ruleCache keeps the rules that power levels and join rules make, because many events cite the same.
type ruleCache map[[2]*event.Event]*auth.Rules

// check checks an event against a state.
func (c *ruleCache) check(create, e *event.Event, find func(event.StateKey) *event.Event) error {
	key := [2]*event.Event{find(event.StateKey{Type: "m.room.power_levels"}), find(event.StateKey{Type: "m.room.join_rules"})}
	r := (*c)[key]
	if r == nil {
		var err error
		if r, err = auth.NewRules(create, key[0], key[1]); err != nil {
			return &auth.Denied{Rule: "state.malformed", Reason: "The state of the room cannot be read."}
		}
		if *c == nil || len(*c) > 100 {
			*c = ruleCache{}
		}
		(*c)[key] = r
	}
	state := func(typ, key string) *event.Event {
		if typ == auth.TypeCreate && key == "" {
			return create
		}
		return find(event.StateKey{Type: typ, Key: key})
	}
	return r.Check(e, auth.FactsOf(state, signedBy(e)))
}

// enter stores the room.
func (a *adoption) enter() error {
	s := a.s
	l, err := s.live(a.ctx, a.RoomID)
	if errors.Is(err, ErrUnknownRoom) {
		return a.begin(&storage.Room{ID: a.RoomID, Version: a.version, Tenant: a.As}, nil, 0)
	}
	if err != nil {
		return err
	}
	leave, err := l.enter(a.ctx)
	if err != nil {
		return err
	}
	l.mu.Lock()
	gone, local, room, head, last := l.gone, l.hasLocal(s), l.room, l.room.Head, l.last
	same := l.rules.Create().ID == a.create.ID && l.version.ID == a.version.ID
	l.mu.Unlock()
	if gone || last.wait() != nil {
		leave()
		return storage.ErrConflict
	}
	if !same {
		leave()
		s.log.WithFields(logrus.Fields{"room_id": a.RoomID, "origin": a.Via}).Warn("another room with the ID of one that is known came with the answer to a join; it was refused")
		return unfit("the room is another one than the one known here.")
	}
	if local {
		leave()
		return a.follow(l)
	}
	defer leave()
	err = a.begin(room, &head.StateRoot, head.Depth)
	s.drop(l)
	return err
}

// follow takes the join in where users of ours are in the room already.
func (a *adoption) follow(l *live) error {
	src := &source{s: a.s, as: a.As, from: a.Via, room: a.RoomID, l: l}
	events := make([]*event.Event, len(a.chain))
	state := make([]matrix.EventID, 0, len(a.state))
	for i, e := range a.chain {
		events[i] = e.Event
	}
	for _, e := range a.state {
		state = append(state, e.ID)
	}
	in := &arrival{e: a.join}
	a.s.take(a.ctx, a.RoomID, []*arrival{in})
	if m := (*MissingError)(nil); errors.As(in.err, &m) {
		if err := src.store(a.ctx, events); err != nil {
			return err
		}
		in = &arrival{e: a.join, stateBefore: state}
		a.s.take(a.ctx, a.RoomID, []*arrival{in})
	}
	if in.err != nil {
		return refused(in.err)
	}
	if in.r.Flags.Hidden() {
		return matrix.Forbidden("The room does not let you in: %s", in.r.Reason)
	}
	return nil
}

// begin stores the room's state and the join in one commit. before is the state that was known of the room, nil for none.
func (a *adoption) begin(room *storage.Room, before *statemap.Hash, depth int64) error {
	s := a.s
	n := &storage.Append{Room: room}
	known, err := a.known()
	if err != nil {
		return err
	}
	for _, e := range a.chain {
		k, ok := known[e.ID]
		if !ok {
			n.Events = append(n.Events, storage.NewEvent{Event: e.Event, Flags: e.Flags, AuthRank: e.AuthRank})
		} else if k&storage.Rejected != 0 {
			delete(a.state, e.Key())
		}
	}
	changes := make([]statemap.Change, 0, len(a.state)+1)
	for k, e := range a.state {
		changes = append(changes, statemap.Change{Key: k, ID: e.ID})
	}
	slices.SortFunc(changes, func(x, y statemap.Change) int {
		return slices.Compare([]string{x.Key.Type, x.Key.Key}, []string{y.Key.Type, y.Key.Key})
	})
	root, nodes, err := statemap.Put(s.loader(a.ctx), statemap.Hash{}, changes)
	if err != nil {
		return err
	}
	for _, node := range nodes {
		s.nodes.put(node.Hash, node.Data)
	}
	join := storage.NewEvent{Event: a.join, Flags: storage.Relayed, Replaces: idOf(a.state[a.join.Key()])}
	for _, id := range a.join.AuthEvents {
		join.AuthRank = max(join.AuthRank, a.byID[id].AuthRank+1)
	}
	own := []statemap.Change{{Key: a.join.Key(), ID: a.join.ID}}
	after, more, err := statemap.Put(s.loader(a.ctx), root, own)
	if err != nil {
		return err
	}
	join.StateRoot = after
	for _, node := range more {
		s.nodes.put(node.Hash, node.Data)
	}
	if err := a.miss(&join); err != nil {
		return err
	}
	if before != nil && len(join.Missing) > 0 {
		join.Flags |= storage.Gapped
		join.Ahead = holeFor(depth, a.join.Depth)
	}
	n.Events, n.Nodes = append(n.Events, join), append(nodes, more...)
	n.State = append(changes, own...)
	if before != nil {
		diff, err := statemap.Diff(s.loader(a.ctx), *before, after)
		if err != nil {
			return err
		}
		n.State = n.State[:0]
		for _, d := range diff {
			n.State = append(n.State, statemap.Change{Key: d.Key, ID: d.B})
		}
	}
	n.Head = storage.Head{Name: string(a.join.ID), Extremities: []matrix.EventID{a.join.ID}, Depth: max(depth, a.join.Depth), StateRoot: after}
	if before != nil {
		n.Also = func(tx *storage.Tx) error { return tx.Announce(storage.NoticeState, string(a.RoomID)) }
	}
	return s.DB.Append(a.ctx, n)
}

func idOf(e *storage.Event) matrix.EventID {
	if e == nil {
		return ""
	}
	return e.ID
}

// known are the flags of those of the events that are stored.
func (a *adoption) known() (map[matrix.EventID]storage.Flags, error) {
	out := map[matrix.EventID]storage.Flags{}
	err := a.s.DB.Read(a.ctx, func(tx *storage.Tx) error {
		for chunk := range slices.Chunk(a.chain, 2000) {
			ids := make([]matrix.EventID, len(chunk))
			for i, e := range chunk {
				ids[i] = e.ID
			}
			found, err := tx.FindEventFlags(ids)
			if err != nil {
				return err
			}
			for id, f := range found {
				out[id] = f
			}
		}
		return nil
	})
	return out, err
}
