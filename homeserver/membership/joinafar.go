package membership

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"hansa/federation"
	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/event"
	"hansa/matrix/signing"
	"hansa/policy"
	"hansa/storage"
)

// joinAfar brings the caller into a room with the help of a server that is in it: one that nobody of ours is in, or a restricted one
// that nobody here can let the caller into; then local is what the client is told if nobody else can.
//
// The join is provisional. It says nothing but that the user joins; name and picture follow when the other server has told who is in
// the room, and policy has agreed to that. Else the user leaves at once, and no client ever sees the room.
//
// spec: server-server-api#joining-rooms
func (s *Service) joinAfar(ctx context.Context, c Caller, id matrix.RoomID, extra content, via []matrix.ServerName, local error) (matrix.EventID, error) {
	if s.Remote == nil {
		return "", orNoEntry(local)
	}
	release, err := s.turns.take(ctx, id)
	if err != nil {
		return "", err
	}
	defer func() { release() }()
	door, err := s.door(ctx, id, c.UserID)
	if err != nil && !errors.Is(err, room.ErrUnknownRoom) {
		return "", err
	}
	if err == nil && door.current && local == nil { // somebody of ours was faster
		release()
		release = func() {}
		return s.join(ctx, c, id, extra, nil)
	}
	j := &entry{s: s, c: c, w: wanted{id, c.UserID, c.UserID, auth.Join}, inside: local != nil}
	if j.way, err = s.wayTo(ctx, c, id, via); err != nil {
		return "", err
	}
	if len(j.way.servers) == 0 {
		return "", orNoEntry(local)
	}
	if err := j.decide(ctx); err != nil {
		return "", err
	}
	out := &outcome{}
	if local != nil {
		out.add(4, local)
	}
	for _, to := range j.way.servers {
		e, final, err := j.through(ctx, to)
		if err == nil {
			s.arrive(ctx, c, e, extra)
			return e.ID, nil
		}
		if final {
			return "", err
		}
		s.log.WithError(err).WithField("room_id", id).WithField("destination", to).Info("a room could not be joined through a server")
		if out.note(s, err) || ctx.Err() != nil {
			break
		}
	}
	return "", out.err
}

func orNoEntry(local error) error {
	if local != nil {
		return local
	}
	return ErrNoEntry()
}

// entry is one user's way into a room.
type entry struct {
	s      *Service
	c      Caller
	w      wanted
	way    *way
	inside bool // somebody of ours is in the room already
}

// decide asks policy before anybody is dialled.
func (j *entry) decide(ctx context.Context) error {
	s := j.s
	if !j.inside {
		return s.decideAfar(ctx, j.c, policy.RoomJoin, j.way, j.w.room)
	}
	facts, audience, err := s.Rooms.PolicyFacts(ctx, j.w.room, j.c.UserID)
	if err == nil {
		_, err = s.decide(ctx, j.c, policy.Input{Point: policy.RoomJoin, Room: facts, Audience: audience})
	}
	if err == nil { // by the other tenants in the room
		err = s.Rooms.MayEnter(ctx, j.w.room, j.c.UserID, auth.Join)
	}
	return err
}

// through tries one server. final is true where the user was let in and must not be, or where our own side failed.
func (j *entry) through(ctx context.Context, to matrix.ServerName) (e *event.Event, final bool, err error) {
	s, as := j.s, j.c.UserID.Server()
	asked, done := context.WithTimeout(ctx, asking)
	answer, err := s.Remote.MakeJoin(asked, as, to, j.w.room, j.w.target, matrix.RoomVersions())
	done()
	if err != nil {
		return nil, false, err
	}
	t, err := readTemplate(answer, j.w)
	if err != nil {
		return nil, false, err
	}
	if j.way.version != nil && t.version.ID != j.way.version.ID {
		return nil, false, fmt.Errorf("%w: the room has version %s, not %s", errUnusable, j.way.version.ID, t.version.ID)
	}
	body := content{}
	if t.via != "" {
		body[authorisedVia] = string(t.via)
	}
	if e, err = s.fill(t, j.w, body); err != nil {
		return nil, true, err
	}
	// From here on the other server may take the user for a member: it goes on though the client has gone away.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), entering)
	defer cancel()
	joined, err := s.Remote.SendJoin(ctx, as, to, j.w.room, event.Federation(e), e.ID)
	if err != nil {
		return nil, false, err
	}
	e = countersigned(e, t.via.Server(), joined.Event)
	if err := j.enter(ctx, to, e, joined); err != nil {
		if final = isRefusal(err); final {
			s.log.WithError(err).WithField("room_id", j.w.room).Error("a room that was joined through another server may not be entered; left at once")
		}
		s.undo(ctx, j.c, to, j.w.room)
		return nil, final, err
	}
	return e, false, nil
}

// enter takes over what the other server tells of the room.
func (j *entry) enter(ctx context.Context, to matrix.ServerName, e *event.Event, joined *federation.JoinAnswer) error {
	s, as := j.s, j.c.UserID.Server()
	if j.inside {
		if errs := s.Rooms.Ingest(ctx, as, to, j.w.room, [][]byte{event.Federation(e)}); errs[0] != nil {
			return errs[0]
		}
		membership, err := s.membershipOf(ctx, j.w.room, j.c.UserID)
		if err == nil && membership != auth.Join {
			err = fmt.Errorf("%w: the join is not valid here", errUnusable)
		}
		return err
	}
	if err := j.inspect(ctx, joined.ServersInRoom); err != nil {
		return err
	}
	state, chain := raw(joined.State), raw(joined.AuthChain)
	joined.State, joined.AuthChain = nil, nil // a large room is not held twice
	err := s.Rooms.Adopt(ctx, room.Adoption{RoomID: j.w.room, Version: e.Version.ID, As: as, Via: to, Event: event.Federation(e), State: state, Auth: chain})
	if errors.Is(err, storage.ErrUnavailable) {
		return storage.Unavailable(err)
	}
	if err != nil && !isRefusal(err) {
		return fmt.Errorf("%w: %w", errUnusable, err)
	}
	return err
}

// isRefusal tells whether policy has refused, or cannot decide.
func isRefusal(err error) bool {
	var e *matrix.Error
	return errors.As(err, &e) && (e.Status == http.StatusForbidden || e.Status == http.StatusServiceUnavailable)
}

// inspect judges the servers in the room, as the other server names them, before anything is stored. Entering judges the people.
func (j *entry) inspect(ctx context.Context, servers []matrix.ServerName) error {
	var named []matrix.ServerName
	for _, n := range servers {
		if name, err := matrix.ParseServerName(string(n)); err == nil {
			named = append(named, name)
		}
	}
	return j.s.approve(ctx, j.c.UserID.Server(), named)
}

// undo takes the user out of a room again that could not be entered.
func (s *Service) undo(ctx context.Context, c Caller, to matrix.ServerName, id matrix.RoomID) {
	if in, err := s.isIn(ctx, id); err != nil || in {
		return // what others hear of the room they hear from us
	}
	if _, err := s.part(ctx, c.UserID, id, []matrix.ServerName{to}, content{}); err != nil {
		s.log.WithError(err).WithField("room_id", id).WithField("destination", to).Warn("a room that could not be entered could not be left either")
	}
}

// arrive does what comes after a join: the invitation is gone, what the user set for the room's predecessor is taken over, and the room
// learns the user's name.
func (s *Service) arrive(ctx context.Context, c Caller, e *event.Event, extra content) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), entering)
	defer cancel()
	log := s.log.WithField("room_id", e.RoomID)
	predecessor := matrix.RoomID("")
	if d, err := s.door(ctx, e.RoomID, c.UserID); err == nil {
		predecessor = d.predecessor
	}
	err := s.DB.Update(ctx, func(tx *storage.Tx) error {
		if _, err := tx.DropRemoteMember(e.RoomID, c.UserID); err != nil {
			return err
		}
		return inherit(tx, c.UserID, predecessor, e.RoomID)
	})
	if err != nil {
		log.WithError(err).Warn("what goes with a join could not be stored")
	}
	delete(extra, authorisedVia)
	profile, err := s.profile(ctx, c.UserID)
	if err == nil && len(profile)+len(extra) > 0 {
		_, err = s.sendMember(ctx, c, e.RoomID, c.UserID, auth.Join, extra, true)
	}
	if err != nil {
		log.WithError(err).Info("the name of a user who joined through another server was not written into the room")
	}
}

// countersigned adds the signature of a server in the answer to an event, where the answer has the same event: the resident server of a
// restricted room signs that it lets the user in.
func countersigned(e *event.Event, server matrix.ServerName, answer []byte) *event.Event {
	if len(answer) == 0 || server == "" {
		return e
	}
	other, err := event.Parse(e.Version, answer)
	if err != nil || other.ID != e.ID || string(other.JSON) != string(e.JSON) {
		return e
	}
	return withSignatureOf(e, other, server)
}

// withSignatureOf adds to an event what a server has signed on another copy of it.
func withSignatureOf(e, other *event.Event, server matrix.ServerName) *event.Event {
	theirs, ok := canonicaljson.Find(other.Signatures, string(server))
	if !ok {
		return e
	}
	return e.WithSignatures(signing.MergeSignatures(e.Signatures, canonicaljson.Set([]byte("{}"), string(server), theirs)))
}

func raw[T ~[]byte](list []T) [][]byte {
	out := make([][]byte, len(list))
	for i := range list {
		out[i] = list[i]
	}
	return out
}
