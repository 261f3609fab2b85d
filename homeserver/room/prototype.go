package room

import (
	"context"
	"errors"
	"math"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/event"
	"hansa/matrix/signing"
	"hansa/storage"
)

// Prototype returns an event for a user of another server that would be right on the present head of a room, without hashes and
// signatures, and the room's version: what make_join, make_leave and make_knock answer. What the rules of the room forbid is 403. Policy is
// not asked, and nothing is stored. An unknown room is ErrUnknownRoom, one that nobody of ours is in 404.
//
// spec: server-server-api#get_matrixfederationv1make_joinroomiduserid
// spec: server-server-api#get_matrixfederationv1make_leaveroomiduserid
// spec: server-server-api#get_matrixfederationv1make_knockroomiduserid
func (s *Service) Prototype(ctx context.Context, d Draft) (version string, pdu []byte, err error) {
	e, err := s.compose(ctx, &d)
	if err != nil {
		return "", nil, err
	}
	object := append([]byte(nil), e.JSON...)
	object, _ = canonicaljson.Cut(object, "hashes")
	object, _ = canonicaljson.Cut(object, "event_id")
	return e.Version.ID, object, nil
}

// Compose returns an event of one of our users that would be right on the present head of a room, signed and ready for other servers,
// without storing it: an invitation that the invited user's server has to sign before it counts. Accept stores it then. Policy is
// not asked. An unknown room is ErrUnknownRoom.
//
// spec: server-server-api#inviting-to-a-room
func (s *Service) Compose(ctx context.Context, d Draft) (*event.Event, error) {
	key, ok := s.Keys[d.Sender.Server()]
	if !ok {
		return nil, matrix.Forbidden("%s is not a user of this server.", d.Sender)
	}
	e, err := s.compose(ctx, &d)
	if err != nil {
		return nil, err
	}
	return signing.SignEvent(e, d.Sender.Server(), key), nil
}

// compose builds an event on the head of a room. All that it cites is durable when compose returns.
func (s *Service) compose(ctx context.Context, d *Draft) (*event.Event, error) {
	if err := s.prepare(ctx, d); err != nil {
		return nil, unavailable(err)
	}
	for range maxTries {
		l, err := s.live(ctx, d.RoomID)
		if err != nil {
			return nil, unavailable(err)
		}
		l.mu.Lock()
		if l.gone {
			l.mu.Unlock()
			continue
		}
		if !l.hasLocal(s) {
			l.mu.Unlock()
			return nil, errNotHere() // what is known of the room may be old
		}
		draft, _ := l.draft(s, d)
		e, err := event.Build(l.version, draft)
		if err == nil {
			err = denied(l.rules.Check(e, &composedFacts{l}))
		}
		last := l.last
		l.mu.Unlock()
		if err != nil {
			return nil, err
		}
		if last.wait() == nil && (last == nil || !last.moved) {
			return e, nil
		}
	}
	return nil, unavailable(errors.New("the room is too busy"))
}

// draft is the event of a draft on the room's head, and its rank among auth events. The caller holds l.mu.
func (l *live) draft(s *Service, d *Draft) (event.Draft, int64) {
	draft := event.Draft{RoomID: d.RoomID, Type: d.Type, StateKey: d.StateKey, Sender: d.Sender, Content: d.Content, Redacts: d.Redacts, OriginServerTS: s.nowMS()}
	if d.OriginServerTS != nil {
		draft.OriginServerTS = *d.OriginServerTS
	}
	s.place(&draft, l.version, l.room.Head)
	rank := int64(0)
	for _, k := range auth.Needed(l.version, d.Type, d.StateKey, d.Sender, d.Content) {
		if id := l.currentID(k); id != "" {
			draft.AuthEvents = append(draft.AuthEvents, id)
			rank = max(rank, l.rank(k)+1)
		}
	}
	return draft, rank
}

// place puts a draft behind a head.
func (s *Service) place(d *event.Draft, v *matrix.RoomVersion, h storage.Head) {
	d.Depth, d.PrevEvents = min(h.Depth, math.MaxInt64-1)+1, h.Extremities[:min(len(h.Extremities), maxPrev)]
	if !v.EventIDHash {
		d.EventID = matrix.EventID("$" + s.random(18) + ":" + string(d.Sender.Server()))
	}
}

// composedFacts are the facts of the current state for an event that is not signed yet: who has to sign it will.
type composedFacts struct{ *live }

// SignedBy implements auth.Facts.
func (f *composedFacts) SignedBy(matrix.ServerName) bool { return true }
