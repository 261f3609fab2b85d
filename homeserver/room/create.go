package room

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/event"
	"hansa/policy"
	"hansa/storage"
	"hansa/storage/statemap"
)

// NewRoom is a room that one of our users wants: the drafts of its first events, the create event first.
type NewRoom struct {
	Version *matrix.RoomVersion
	Creator matrix.UserID
	// Drafts are the initial events in order; RoomID is filled in. A draft with Decided was judged before, the others are
	// judged here, on the room as the drafts before have made it.
	Drafts []NewDraft
	// Decision is the answer of room.create.
	Decision policy.Decision
	// Also runs in the transaction that stores the room, with its ID; it may run again.
	Also func(*storage.Tx, matrix.RoomID) error
}

// NewDraft is one initial event.
type NewDraft struct {
	Draft
	// Decided marks events that follow from room.create itself: the create event, the creator's membership, power levels.
	Decided bool
}

// ErrStale is returned where policy changed while a room was made: what it decided is to be asked again.
var ErrStale = errors.New("room: the policy has changed meanwhile")

// Create makes a room with all its first events in one commit: it is there whole or not at all.
func (s *Service) Create(ctx context.Context, n NewRoom) (matrix.RoomID, error) {
	for try := 0; ; try++ {
		id, err := s.tryCreate(ctx, n)
		if try < 5 && (errors.Is(err, storage.ErrConflict) || errors.Is(err, storage.ErrDuplicate)) {
			continue
		}
		return id, unavailable(err)
	}
}

func (s *Service) tryCreate(ctx context.Context, n NewRoom) (matrix.RoomID, error) {
	l := newLive("")
	l.version = n.Version
	all := &storage.Append{}
	for i := range n.Drafts {
		d := n.Drafts[i].Draft
		d.Sender = n.Creator
		var a *storage.Append
		var err error
		if i == 0 {
			a, err = s.begin(ctx, l, &n, &d)
		} else {
			a, err = s.next(ctx, l, &n, &d, n.Drafts[i].Decided)
		}
		if err != nil {
			return "", err
		}
		if a == nil {
			continue // says what an earlier draft has said
		}
		if err := l.apply(a); err != nil {
			return "", err
		}
		all.Events = append(all.Events, a.Events...)
		all.Nodes = append(all.Nodes, a.Nodes...)
		all.State = append(all.State, a.State...)
		all.Head = a.Head
	}
	if n.Decision.ID != "" && !s.Policy.Fresh(n.Decision) {
		return "", ErrStale
	}
	all.Room = &storage.Room{ID: l.id, Version: n.Version, Tenant: n.Creator.Server()}
	if n.Also != nil {
		all.Also = func(tx *storage.Tx) error { return n.Also(tx, l.id) }
	}
	l.err = ErrUnknownRoom
	s.mu.Lock()
	if _, ok := s.rooms[l.id]; !ok {
		s.keep(l) // before others can write into it: the log tells of what they write
	}
	s.mu.Unlock()
	err := s.DB.Append(ctx, all)
	if err == nil {
		l.room, l.base, l.err = all.Room, all.Room.Head.LastPos, nil
		clear(l.flying)
	}
	s.finish(context.WithoutCancel(ctx), []*live{l}) // as in fill
	if err != nil {
		return "", fmt.Errorf("create %s: %w", l.id, err)
	}
	return l.id, nil
}

// begin makes the create event, and with it the room's ID.
func (s *Service) begin(ctx context.Context, l *live, n *NewRoom, d *Draft) (*storage.Append, error) {
	content, err := canonicaljson.Canonicalize(d.Content, true)
	if err != nil {
		return nil, matrix.BadJSON("The creation content is not canonical JSON: %v.", err)
	}
	server := string(n.Creator.Server())
	draft := event.Draft{Type: auth.TypeCreate, StateKey: d.StateKey, Sender: n.Creator, Content: content, Depth: 1, OriginServerTS: s.createTS()}
	if !n.Version.RoomIDHash {
		draft.RoomID = matrix.RoomID("!" + s.random(18) + ":" + server)
	}
	if !n.Version.EventIDHash {
		draft.EventID = matrix.EventID("$" + s.random(18) + ":" + server)
	}
	e, err := event.Build(n.Version, draft)
	if err != nil {
		return nil, err
	}
	if err := auth.CheckCreate(e); err != nil {
		return nil, matrix.InvalidParam("%v", denied(err))
	}
	l.id = e.RoomID
	l.room = &storage.Room{ID: e.RoomID, Version: n.Version, Tenant: n.Creator.Server()}
	a := &storage.Append{Room: l.room, State: []statemap.Change{{Key: e.Key(), ID: e.ID}}}
	root, nodes, err := statemap.Put(s.loader(ctx), statemap.Hash{}, a.State)
	if err != nil {
		return nil, err
	}
	for _, node := range nodes {
		s.nodes.put(node.Hash, node.Data)
	}
	a.Nodes = nodes
	a.Events = []storage.NewEvent{{Event: e, StateRoot: root, DecisionID: n.Decision.ID}}
	a.Head = storage.Head{Name: string(e.ID), Depth: 1, StateRoot: root, Extremities: []matrix.EventID{e.ID}}
	return a, nil
}

// createTS is the time of a create event. No two of a node are the same: where the ID of a room is the hash of its create event,
// somebody who makes two equal rooms in one millisecond would make one room twice.
func (s *Service) createTS() int64 {
	for {
		now, last := s.nowMS(), s.created.Load()
		if ts := max(now, last+1); s.created.CompareAndSwap(last, ts) {
			return ts
		}
	}
}

// next makes one of the events after the create event.
func (s *Service) next(ctx context.Context, l *live, n *NewRoom, d *Draft, decided bool) (*storage.Append, error) {
	d.RoomID = l.id
	if err := s.prepare(ctx, d); err != nil {
		return nil, err
	}
	decision := n.Decision
	if !decided {
		q, err := s.ask(ctx, l, d)
		if err != nil {
			return nil, err
		}
		if decision = s.judge(ctx, q); !decision.Allow {
			return nil, decision.Error()
		}
	}
	a, unchanged, err := s.build(ctx, l, d, &decision)
	var refused *matrix.Error
	if errors.As(err, &refused) && refused.Code == matrix.CodeForbidden {
		// The rules of the room forbid what is to make it: the request contradicts itself.
		return nil, matrix.Errorf(http.StatusBadRequest, matrix.CodeInvalidRoomState, "%s cannot be part of the new room: %s", d.Type, refused.Message)
	}
	if err != nil || unchanged != "" {
		return nil, err
	}
	return a, nil
}
