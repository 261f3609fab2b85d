package membership

import (
	"context"
	"fmt"

	"hansa/federation"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/policy"
	"hansa/storage"
)

// knockAfar knocks on a room that nobody of ours is in, by a server that is in it.
//
// spec: server-server-api#knocking-rooms
func (s *Service) knockAfar(ctx context.Context, c Caller, id matrix.RoomID, extra content, via []matrix.ServerName) (matrix.EventID, error) {
	if s.Remote == nil {
		return "", ErrNoEntry()
	}
	w, err := s.wayTo(ctx, c, id, via)
	switch {
	case err != nil:
		return "", err
	case w.asked != nil && w.asked.Membership == auth.Invite:
		return "", matrix.Forbidden("You are in this room or invited already.")
	case len(w.servers) == 0:
		return "", ErrNoEntry()
	}
	if err := s.decideAfar(ctx, c, policy.RoomKnock, w, id); err != nil {
		return "", err
	}
	out := &outcome{}
	for _, to := range w.servers {
		e, answer, err := s.knockThrough(ctx, c, w, to, id, extra)
		if err == nil {
			m := storage.RemoteMember{RoomID: id, UserID: c.UserID, Membership: auth.Knock, Sender: c.UserID, Version: e.Version, EventID: e.ID, Via: to,
				Event: event.Federation(e), Stripped: encodeStripped(s.readStripped(ctx, e.Version, id, answer.KnockRoomState).list)}
			return e.ID, s.DB.Update(context.WithoutCancel(ctx), func(tx *storage.Tx) error { return tx.PutRemoteMember(m) })
		}
		s.log.WithError(err).WithField("room_id", id).WithField("destination", to).Info("could not knock on a room through a server")
		if out.note(s, err) || ctx.Err() != nil {
			break
		}
	}
	return "", out.err
}

func (s *Service) knockThrough(ctx context.Context, c Caller, way *way, to matrix.ServerName, id matrix.RoomID, extra content) (*event.Event, *federation.KnockAnswer, error) {
	w := wanted{id, c.UserID, c.UserID, auth.Knock}
	asked, done := context.WithTimeout(ctx, asking)
	defer done()
	made, err := s.Remote.MakeKnock(asked, c.UserID.Server(), to, id, c.UserID, knockVersions())
	if err != nil {
		return nil, nil, err
	}
	t, err := readTemplate(made, w)
	if err != nil {
		return nil, nil, err
	}
	if !t.version.Knock || way.version != nil && way.version.ID != t.version.ID {
		return nil, nil, fmt.Errorf("%w: room version %s", errUnusable, t.version.ID)
	}
	e, err := s.fill(t, w, extra)
	if err != nil {
		return nil, nil, err
	}
	answer, err := s.Remote.SendKnock(context.WithoutCancel(ctx), c.UserID.Server(), to, id, event.Federation(e), e.ID)
	return e, answer, err
}

// knockVersions are the room versions that know knocking.
func knockVersions() []string {
	var out []string
	for _, id := range matrix.RoomVersions() {
		if v, _ := matrix.FindRoomVersion(id); v.Knock {
			out = append(out, id)
		}
	}
	return out
}
