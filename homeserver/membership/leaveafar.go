package membership

import (
	"context"
	"errors"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/policy"
	"hansa/storage"
)

// askedAfar is the invitation or knock of a user in a room that this deployment is not in, nil without one.
func (s *Service) askedAfar(ctx context.Context, id matrix.RoomID, user matrix.UserID) (*storage.RemoteMember, error) {
	var m storage.RemoteMember
	var ok bool
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) { m, ok, err = tx.FindRemoteMember(id, user); return err })
	if err != nil || !ok || !m.Open() {
		return nil, err
	}
	return &m, nil
}

// leaveAfar refuses an invitation into a room that this deployment is not in, or takes a knock back. The user is out whether or not
// another server can be told: one that is gone, or that is no partner any more, keeps nobody in.
//
// spec: server-server-api#leaving-rooms-rejecting-invites
func (s *Service) leaveAfar(ctx context.Context, c Caller, asked *storage.RemoteMember, extra content) (matrix.EventID, error) {
	known := hear(asked.Version, asked.Stripped)
	facts, audience, err := s.hearsayFacts(ctx, &known, asked.RoomID, c.UserID.Server())
	if err != nil {
		return "", err
	}
	facts.Membership = asked.Membership
	if _, err := s.decide(ctx, c, policy.Input{Point: policy.RoomLeave, Room: facts, Audience: audience}); err != nil {
		return "", err
	}
	w := &way{}
	w.add(s, asked.Via, asked.Sender.Server(), asked.RoomID.Server())
	e, err := s.part(ctx, c.UserID, asked.RoomID, w.servers, extra)
	if err != nil {
		s.log.WithError(err).WithField("room_id", asked.RoomID).Info("no other server could be told that an invitation was refused")
		if e, err = s.partAlone(c.UserID, asked, extra); err != nil {
			return "", err
		}
	}
	gone := *asked
	gone.Membership, gone.Sender, gone.EventID, gone.Event, gone.Stripped = auth.Leave, c.UserID, e.ID, event.Federation(e), nil
	return e.ID, s.DB.Update(context.WithoutCancel(ctx), func(tx *storage.Tx) error { return tx.PutRemoteMember(gone) })
}

// part takes a user out of a room by the first server that helps.
func (s *Service) part(ctx context.Context, user matrix.UserID, id matrix.RoomID, servers []matrix.ServerName, extra content) (*event.Event, error) {
	last := errors.New("membership: no server to leave through")
	if s.Remote == nil {
		return nil, last
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), parting)
	defer cancel()
	w := wanted{id, user, user, auth.Leave}
	for _, to := range servers {
		var e *event.Event
		answer, err := s.Remote.MakeLeave(ctx, user.Server(), to, id, user)
		if err == nil {
			var t *template
			if t, err = readTemplate(answer, w); err == nil {
				e, err = s.fill(t, w, extra)
			}
		}
		if err == nil {
			err = s.Remote.SendLeave(ctx, user.Server(), to, id, event.Federation(e), e.ID)
		}
		if err == nil {
			return e, nil
		}
		last = err
	}
	return nil, last
}

// partAlone makes the event for the user's own clients where no other server takes it.
func (s *Service) partAlone(user matrix.UserID, asked *storage.RemoteMember, extra content) (*event.Event, error) {
	before, err := asked.Parse()
	if err != nil {
		return nil, err
	}
	t := &template{version: asked.Version, depth: 1}
	if before != nil {
		t.depth, t.prev, t.auth = before.Depth+1, []matrix.EventID{before.ID}, []matrix.EventID{before.ID}
	}
	return s.fill(t, wanted{asked.RoomID, user, user, auth.Leave}, extra)
}

// leaveUnknown takes a user out of a room that is known here from former days and that nobody of ours is in any more, where an
// invitation or a knock of the user remains from them.
func (s *Service) leaveUnknown(ctx context.Context, c Caller, id matrix.RoomID, extra content) (matrix.EventID, error) {
	var m storage.Member
	var r *storage.Room
	var e *storage.Event
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		if m, _, err = tx.FindMember(id, c.UserID); err != nil {
			return err
		}
		if r, err = tx.LoadRoom(id); err == nil {
			e, err = tx.LoadEvent(m.EventID)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	return s.leaveAfar(ctx, c, &storage.RemoteMember{RoomID: id, UserID: c.UserID, Membership: m.Membership, Sender: m.Sender, Version: r.Version,
		EventID: m.EventID, Via: m.Sender.Server(), Event: event.Federation(e.Event)}, extra)
}

// forgetAfar forgets how an invitation or knock in a remote room ended. It reports false where there is nothing to forget.
func (s *Service) forgetAfar(ctx context.Context, c Caller, m *storage.RemoteMember) error {
	known := hear(m.Version, m.Stripped)
	facts, audience, err := s.hearsayFacts(ctx, &known, m.RoomID, c.UserID.Server())
	if err != nil {
		return err
	}
	if _, err := s.decide(ctx, c, policy.Input{Point: policy.RoomLeave, Room: facts, Audience: audience}); err != nil {
		return err
	}
	return s.DB.Update(ctx, func(tx *storage.Tx) error {
		if _, err := tx.Forget(m.RoomID, c.UserID); err != nil {
			return err
		}
		_, err := tx.DropRemoteMember(m.RoomID, c.UserID)
		return err
	})
}
