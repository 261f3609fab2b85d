package clientsync

import (
	"context"
	"errors"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/storage"
	"hansa/storage/statemap"
)

// sight is the state that a reader sees of a room: the present one, or that of a moment.
type sight struct {
	room matrix.RoomID
	now  bool
	root statemap.Hash // where it is not the present one
}

// look finds out which state a reader sees: members the present one, who has left that of leaving, others nothing unless everybody
// may look in. at moves it back.
func (s *Service) look(tx *storage.Tx, v Viewer, room matrix.RoomID, at *Token) (*sight, error) {
	if _, err := s.access(tx, v, room); err != nil {
		return nil, err
	}
	end, err := leftBy(tx, room, v.User)
	if err != nil {
		return nil, err
	}
	if at == nil || end != nil && at.Pos >= end.Pos {
		if end == nil {
			return &sight{room: room, now: true}, nil
		}
		return &sight{room: room, root: end.StateRoot}, nil
	}
	list, err := tx.LoadPage(room, at.Pos, storage.Backward, 1)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, matrix.InvalidParam("The room is younger than this token.")
	}
	return &sight{room: room, root: list[0].StateRoot}, nil
}

// leftBy is the event by which somebody left a room, nil for who is in it or never was. What happened to them later, such as a
// ban, does not count.
func leftBy(tx *storage.Tx, room matrix.RoomID, user matrix.UserID) (*storage.Event, error) {
	m, ok, err := tx.FindMember(room, user)
	if err != nil || !ok || m.Membership != auth.Leave && m.Membership != auth.Ban {
		return nil, err
	}
	_, end, err := tx.LastStay(m)
	return end, err
}

// events loads state events; members chooses memberships, all of them or everything.
func (g *sight) events(tx *storage.Tx, members bool) ([]*storage.Event, error) {
	if !g.now {
		list, err := tx.LoadWholeStateAt(g.root)
		if !members {
			return list, err
		}
		var out []*storage.Event
		for _, e := range list {
			if e.Type == typeMember {
				out = append(out, e)
			}
		}
		return out, err
	}
	rooms := []matrix.RoomID{g.room}
	if members {
		byRoom, err := tx.LoadStateTypes(rooms, []string{typeMember})
		return byRoom[g.room], err
	}
	byRoom, err := tx.LoadState(rooms, true)
	return byRoom[g.room], err
}

// show leaves out what the reader may not know of, and writes the rest in the client format.
func (s *Service) show(ctx context.Context, v Viewer, events []*storage.Event) ([][]byte, error) {
	list, err := s.showable(ctx, v, events)
	if err != nil {
		return nil, err
	}
	r := reader{user: v.User, device: v.Device, now: s.Now().UnixMilli(), roomID: true}
	out := make([][]byte, len(list))
	for i, e := range list {
		out[i] = r.appendEvent(nil, newItem(e), "")
	}
	return out, nil
}

func (s *Service) showable(ctx context.Context, v Viewer, events []*storage.Event) ([]*storage.Event, error) {
	c := s.Contacts(v.Party)
	users := make([]matrix.UserID, 0, 2*len(events))
	for _, e := range events {
		if users = append(users, e.Sender); e.Type == typeMember && e.StateKey != nil {
			users = append(users, matrix.UserID(*e.StateKey))
		}
	}
	if err := c.Ask(ctx, users); err != nil {
		return nil, err
	}
	out := make([]*storage.Event, 0, len(events))
	for _, e := range events {
		if e = c.Show(ctx, e); e != nil {
			out = append(out, e)
		}
	}
	return out, nil
}

// LoadRoomState returns the state of a room as a reader sees it.
//
// spec: client-server-api#get_matrixclientv3roomsroomidstate
func (s *Service) LoadRoomState(ctx context.Context, v Viewer, room matrix.RoomID) ([][]byte, error) {
	var list []*storage.Event
	err := s.view(ctx, v, room, errHidden(), func(tx *storage.Tx, _ *Contacts) error {
		g, err := s.look(tx, v, room, nil)
		if err == nil {
			list, err = g.events(tx, false)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.show(ctx, v, list)
}

// LoadRoomStateEvent returns one entry of the state of a room as a reader sees it: its content, and the whole event.
//
// spec: client-server-api#get_matrixclientv3roomsroomidstateeventtypestatekey
func (s *Service) LoadRoomStateEvent(ctx context.Context, v Viewer, room matrix.RoomID, key event.StateKey) (content, whole []byte, err error) {
	var e *storage.Event
	err = s.view(ctx, v, room, errHidden(), func(tx *storage.Tx, _ *Contacts) error {
		g, err := s.look(tx, v, room, nil)
		if err != nil {
			return err
		}
		if g.now {
			if e, err = tx.LoadStateEvent(room, key); errors.Is(err, storage.ErrNotFound) {
				err = nil
			}
			return err
		}
		at, err := tx.LoadStateAt(g.root, []event.StateKey{key})
		e = at[key]
		return err
	})
	missing := matrix.NotFound("The room has no such state.")
	if err != nil || e == nil {
		if err == nil {
			err = missing
		}
		return nil, nil, err
	}
	list, err := s.showable(ctx, v, []*storage.Event{e})
	if err != nil {
		return nil, nil, err
	}
	if len(list) == 0 {
		return nil, nil, missing
	}
	r := reader{user: v.User, device: v.Device, now: s.Now().UnixMilli(), roomID: true}
	return list[0].Content, r.appendEvent(nil, newItem(list[0]), ""), nil
}

// MemberQuery narrows a list of memberships.
type MemberQuery struct {
	At *Token
	// Is and IsNot are memberships; with both, either is enough. Empty for any.
	Is, IsNot string
}

func (q *MemberQuery) wants(membership string) bool {
	switch {
	case q.Is == "" && q.IsNot == "":
		return true
	case q.Is != "" && membership == q.Is:
		return true
	}
	return q.IsNot != "" && membership != q.IsNot
}

// LoadRoomMembers returns the memberships of a room as a reader sees them, without those of people whom the reader may not know of.
//
// spec: client-server-api#get_matrixclientv3roomsroomidmembers
func (s *Service) LoadRoomMembers(ctx context.Context, v Viewer, room matrix.RoomID, q MemberQuery) ([][]byte, error) {
	var list []*storage.Event
	err := s.view(ctx, v, room, errHidden(), func(tx *storage.Tx, _ *Contacts) error {
		g, err := s.look(tx, v, room, q.At)
		if err != nil {
			return err
		}
		all, err := g.events(tx, true)
		if err == nil && !g.now { // the present ones are how those who are erased have left
			all, err = s.erase(tx, v.User, all)
		}
		list = list[:0]
		for _, e := range all {
			if q.wants(event.Membership(e.Event)) {
				list = append(list, e)
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.show(ctx, v, list)
}

// LoadJoined returns what the joined users of a room are called, to somebody who is one of them.
//
// spec: client-server-api#get_matrixclientv3roomsroomidjoined_members
func (s *Service) LoadJoined(ctx context.Context, v Viewer, room matrix.RoomID) (map[matrix.UserID]event.MemberContent, error) {
	if err := s.enter(ctx, v, room, errHidden()); err != nil {
		return nil, err
	}
	if !s.isMember(ctx, room, v.User) {
		return nil, errHidden()
	}
	var list []*storage.Event
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		byRoom, err := tx.LoadStateTypes([]matrix.RoomID{room}, []string{typeMember})
		list = byRoom[room]
		return err
	})
	if err != nil {
		return nil, err
	}
	if list, err = s.showable(ctx, v, list); err != nil {
		return nil, err
	}
	out := map[matrix.UserID]event.MemberContent{}
	for _, e := range list {
		if m := event.Member(e.Event); m.Membership == auth.Join {
			out[matrix.UserID(*e.StateKey)] = m
		}
	}
	return out, nil
}

// CheckInside is nil for who may look into a room as it is: members, and everybody where the room says so.
func (s *Service) CheckInside(ctx context.Context, v Viewer, room matrix.RoomID) error {
	return s.view(ctx, v, room, errHidden(), func(tx *storage.Tx, _ *Contacts) error {
		g, err := s.look(tx, v, room, nil)
		if err == nil && !g.now {
			err = errHidden()
		}
		return err
	})
}
