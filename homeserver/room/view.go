package room

import (
	"context"
	"iter"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/policy"
	"hansa/storage"
)

// View is a look at a room in memory. It is valid only inside the function that it is given to, which must not block.
type View struct{ l *live }

// Look calls fn with the current state of a room. An unknown room is ErrUnknownRoom.
func (s *Service) Look(ctx context.Context, id matrix.RoomID, fn func(View)) error {
	l, err := s.live(ctx, id)
	if err != nil {
		return unavailable(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	fn(View{l})
	return nil
}

// Version is the room's version.
func (v View) Version() *matrix.RoomVersion { return v.l.room.Version }

// Tenant is the tenant that made the room here.
func (v View) Tenant() matrix.ServerName { return v.l.room.Tenant }

// Rules are the parsed create event, power levels and join rules.
func (v View) Rules() *auth.Rules { return v.l.rules }

// Membership is a user's current membership, empty for none.
func (v View) Membership(user matrix.UserID) string { return v.l.members[user].membership }

// MemberEvent is the ID of the event that says what a user's current membership is, empty for none.
func (v View) MemberEvent(user matrix.UserID) matrix.EventID { return v.l.members[user].event }

// Joined is the number of joined users.
func (v View) Joined() int { return v.l.joined }

// Members goes through the memberships of the room.
func (v View) Members() iter.Seq2[matrix.UserID, string] {
	return func(yield func(matrix.UserID, string) bool) {
		for u, m := range v.l.members {
			if !yield(u, m.membership) {
				return
			}
		}
	}
}

// State is the current event of a state key other than a membership, nil where there is none.
func (v View) State(typ, key string) *event.Event {
	return v.l.state[event.StateKey{Type: typ, Key: key}].event
}

// AllState goes through the current state without memberships.
func (v View) AllState() iter.Seq[*event.Event] {
	return func(yield func(*event.Event) bool) {
		for _, e := range v.l.state {
			if !yield(e.event) {
				return
			}
		}
	}
}

// Durable returns a function that waits until all that the view shows is on the disk, to be called after the look. It returns an
// error where that did not come true: look again.
func (v View) Durable() func() error { return v.l.last.wait }

// Head is the room's head: where the next event goes.
func (v View) Head() storage.Head { return v.l.room.Head }

// PolicyFacts returns what policy is told about a room, and who is in it, for points that others ask: a knock, a publication, a
// preview, a receipt.
func (s *Service) PolicyFacts(ctx context.Context, id matrix.RoomID, user matrix.UserID) (*policy.Room, *policy.Audience, error) {
	l, err := s.live(ctx, id)
	if err != nil {
		return nil, nil, unavailable(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := s.gather(ctx, l); err != nil {
		return nil, nil, unavailable(err)
	}
	facts := *l.policyRoom(s)
	facts.Membership = l.members[user].membership
	return &facts, l.crowd.audience, nil
}

// ReadFacts is like PolicyFacts, for somebody who wants to read: the audience that somebody must be able to be with who is inside is of this
// deployment's people. Whom other servers bring in cannot close a room to those who are in it: it stays readable, without
// what comes from them, and nobody can send into it.
func (s *Service) ReadFacts(ctx context.Context, id matrix.RoomID, user matrix.UserID) (*policy.Room, *policy.Audience, error) {
	facts, audience, err := s.PolicyFacts(ctx, id, user)
	if err != nil || facts.Membership != auth.Join {
		return facts, audience, err
	}
	l, err := s.live(ctx, id)
	if err != nil {
		return nil, nil, unavailable(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := s.gather(ctx, l); err != nil {
		return nil, nil, unavailable(err)
	}
	return facts, l.crowd.own, nil
}

// Unseen counts the people of other servers who are present in a room and whom may is false for.
func (s *Service) Unseen(ctx context.Context, id matrix.RoomID, may func(*policy.Party) bool) (storage.MemberCounts, error) {
	var n storage.MemberCounts
	l, err := s.live(ctx, id)
	if err != nil {
		return n, unavailable(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := s.gather(ctx, l); err != nil {
		return n, unavailable(err)
	}
	if l.crowd.own.Len() == len(l.crowd.parties) {
		return n, nil
	}
	for user, p := range l.crowd.parties {
		switch {
		case p.Local || may(p):
		case l.members[user].membership == auth.Join:
			n.Joined++
		default:
			n.Invited++
		}
	}
	return n, nil
}

// Incomplete tells whether history from before everything that is known of a room may be had from other servers: see Backfill.
func (s *Service) Incomplete(ctx context.Context, id matrix.RoomID) (bool, error) {
	if s.Remote == nil {
		return false, nil
	}
	gaps, err := s.gaps(ctx, id, storage.NoHole)
	return len(gaps) > 0, err
}

// Audience is who is present in a room, as policy sees it.
func (s *Service) Audience(ctx context.Context, id matrix.RoomID) (*policy.Audience, error) {
	l, err := s.live(ctx, id)
	if err != nil {
		return nil, unavailable(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := s.gather(ctx, l); err != nil {
		return nil, unavailable(err)
	}
	return l.crowd.audience, nil
}
