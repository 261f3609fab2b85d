package membership

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/matrix/signing"
	"hansa/policy"
	"hansa/storage"
)

// inviteAfar invites a user of another server: the event is made and signed, the other server signs it, too, and only then does it
// become part of the room. Policy and the limits are asked before anything is dialled.
//
// spec: server-server-api#inviting-to-a-room
func (s *Service) inviteAfar(ctx context.Context, c Caller, id matrix.RoomID, target matrix.UserID, extra content) (matrix.EventID, error) {
	if err := s.decideInvite(ctx, c, id, target); err != nil {
		return "", err
	}
	d, err := s.member(ctx, c, id, target, auth.Invite, extra, false)
	if err != nil {
		return "", err
	}
	e, err := s.Rooms.Compose(ctx, d)
	if err != nil {
		return "", err
	}
	state, err := s.tellState(ctx, id, c.UserID)
	if err != nil {
		return "", err
	}
	signed, err := s.sendInvite(ctx, c.UserID.Server(), e, target.Server(), state)
	if err != nil {
		return "", err
	}
	// The other server has told its user: the room must hear of it though the client has gone away.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), entering)
	defer cancel()
	if _, err := s.Rooms.Accept(ctx, target.Server(), id, event.Federation(signed)); err != nil {
		return "", err
	}
	return e.ID, nil
}

// decideInvite asks policy whether the caller may invite somebody of another server.
func (s *Service) decideInvite(ctx context.Context, c Caller, id matrix.RoomID, target matrix.UserID) error {
	party, err := s.Parties.Party(ctx, target)
	if err != nil {
		return err
	}
	facts, audience, err := s.Rooms.PolicyFacts(ctx, id, c.UserID)
	if err != nil {
		return err
	}
	if _, err = s.decide(ctx, c, policy.Input{Point: policy.RoomInvite, Room: facts, Audience: audience, Target: party}); err != nil {
		return err
	}
	if err := s.Rooms.MayInvite(ctx, id, c.UserID, target); err != nil { // by the other tenants in the room
		return err
	}
	return s.mayReach(ctx, c.UserID.Server(), target.Server(), facts.Federate)
}

// mayReach is nil where users of a server can be invited into a room.
func (s *Service) mayReach(ctx context.Context, as, to matrix.ServerName, federate bool) error {
	switch {
	case !federate:
		return matrix.Forbidden("Nobody of another server can be in this room.")
	case s.Remote == nil:
		return matrix.Forbidden("This server does not reach other servers.")
	}
	return s.approve(ctx, as, []matrix.ServerName{to})
}

// decideFirst asks policy about those users of other servers who are to be invited into a room that is about to be made, before there
// is a room. Users of ours are judged as the room is made.
func (s *Service) decideFirst(ctx context.Context, m *making, facts *policy.Room) error {
	if s.noneAfar(m) {
		return nil
	}
	parties, err := s.Parties.Parties(ctx, m.invite)
	if err != nil {
		return err
	}
	wanted := *facts
	audience := policy.NewAudience(m.c.Subject)
	for _, u := range m.invite {
		if !s.Rooms.IsLocal(u.Server()) {
			if _, err := s.decide(ctx, m.c, policy.Input{Point: policy.RoomInvite, Room: &wanted, Audience: audience, Target: parties[u]}); err != nil {
				return err
			}
			if err := s.mayReach(ctx, m.c.UserID.Server(), u.Server(), wanted.Federate); err != nil {
				return err
			}
		}
		audience.Add(parties[u])
		if name := string(u.Server()); !slices.Contains(wanted.Servers, name) {
			wanted.Servers = append(slices.Clone(wanted.Servers), name)
		}
	}
	return nil
}

func (s *Service) noneAfar(m *making) bool {
	return !slices.ContainsFunc(m.invite, func(u matrix.UserID) bool { return !s.Rooms.IsLocal(u.Server()) })
}

// inviteFirst invites them when the room is there. One whose server cannot be reached, or who takes no invitations, can be invited again:
// the room is made all the same.
func (s *Service) inviteFirst(ctx context.Context, m *making, id matrix.RoomID) {
	if s.noneAfar(m) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), entering)
	defer cancel()
	for _, u := range m.invite {
		if s.Rooms.IsLocal(u.Server()) {
			continue
		}
		extra := content{}
		if m.direct {
			extra["is_direct"] = true
		}
		if _, err := s.inviteAfar(ctx, m.c, id, u, extra); err != nil {
			s.log.WithError(err).WithField("room_id", id).WithField("destination", u.Server()).Warn("a user of another server was not invited into a new room")
		}
	}
}

// sendInvite has an invitation signed by the server of whom it invites.
func (s *Service) sendInvite(ctx context.Context, as matrix.ServerName, e *event.Event, to matrix.ServerName, state []jsontext.Value) (*event.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, asking)
	defer cancel()
	answer, err := s.Remote.Invite(ctx, as, to, e.RoomID, e.ID, federation.Invite{RoomVersion: e.Version.ID, Event: event.Federation(e), InviteRoomState: state})
	if err == nil {
		var other *event.Event
		if other, err = event.Parse(e.Version, answer); err == nil && (other.ID != e.ID || !bytes.Equal(other.JSON, e.JSON)) {
			err = errors.New("it is another event")
		}
		if err == nil {
			err = s.checkSignature(ctx, other, to)
		}
		if err == nil {
			return withSignatureOf(e, other, to), nil
		}
		err = fmt.Errorf("%w: invitation: %w", errUnusable, err)
	}
	s.log.WithError(err).WithField("room_id", e.RoomID).WithField("destination", to).Info("a user of another server could not be invited")
	out := &outcome{}
	out.note(s, err)
	return nil, out.err
}

// checkSignature is nil where a server has signed an event with a key that it had at the time.
func (s *Service) checkSignature(ctx context.Context, e *event.Event, server matrix.ServerName) error {
	found := errNoKey
	for id := range signing.Signatures(e.Signatures, server) {
		key, err := s.publicKey(ctx, server, id, e.OriginServerTS)
		if err != nil {
			continue // an unknown key proves nothing
		}
		if err := signing.VerifyEvent(e, server, id, key); err != nil {
			return err
		}
		found = nil
	}
	return found
}

// errNoKey says that no key is known by which an event was signed.
var errNoKey = errors.New("membership: no signature with a known key")

func (s *Service) publicKey(ctx context.Context, server matrix.ServerName, id signing.KeyID, at int64) (signing.PublicKey, error) {
	if k, ok := s.Rooms.Keys[server]; ok && k.ID == id {
		return k.Public(), nil
	}
	if s.Rooms.Keyring == nil {
		return signing.PublicKey{}, errNoKey
	}
	return s.Rooms.Keyring.PublicKey(ctx, server, id, at)
}

// tellState is what somebody who is invited to a room or knocks on it is told of it: whole events, as the room version has them.
func (s *Service) tellState(ctx context.Context, id matrix.RoomID, about matrix.UserID) ([]jsontext.Value, error) {
	var durable func() error
	if err := s.Rooms.Look(ctx, id, func(v room.View) { durable = v.Durable() }); err != nil {
		return nil, err
	}
	_ = durable() // whatever became of it, the database has the truth now
	rooms := []matrix.RoomID{id}
	var list []*storage.Event
	err := s.DB.View(ctx, func(tx *storage.Tx) error {
		state, err := tx.LoadStateTypes(rooms, tellable())
		if err != nil {
			return err
		}
		members, err := tx.LoadMemberEvents(rooms, []matrix.UserID{about})
		list = append(state[id], members[id]...)
		return err
	})
	if err != nil {
		return nil, err
	}
	if list, err = s.Rooms.Sign(ctx, list); err != nil {
		return nil, err
	}
	out := make([]jsontext.Value, 0, len(list))
	for _, e := range list {
		if *e.StateKey == "" || e.Type == typeMember {
			out = append(out, event.Federation(e.Event))
		}
	}
	return out, nil
}
