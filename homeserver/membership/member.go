package membership

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/policy"
	"hansa/storage"
)

// authorisedVia is the member of a join that names who lets the user in. Only the server writes it.
const authorisedVia = "join_authorised_via_users_server"

// errInside is returned where somebody is in the room already.
var errInside = errors.New("membership: in the room already")

// content is the content of a membership event beside the membership.
type content map[string]any

// with returns a content with a reason, if there is one.
func with(reason string) content {
	c := content{}
	if reason != "" {
		c["reason"] = reason
	}
	return c
}

// Join brings the caller into a room. Who is in it already stays as they are. Where nobody of ours is in it, the servers via are asked.
//
// spec: client-server-api#post_matrixclientv3roomsroomidjoin
func (s *Service) Join(ctx context.Context, c Caller, id matrix.RoomID, reason string, via ...matrix.ServerName) error {
	_, err := s.join(ctx, c, id, with(reason), via)
	return err
}

func (s *Service) join(ctx context.Context, c Caller, id matrix.RoomID, extra content, servers []matrix.ServerName) (matrix.EventID, error) {
	door, err := s.door(ctx, id, c.UserID)
	if errors.Is(err, room.ErrUnknownRoom) || err == nil && !door.current {
		return s.joinAfar(ctx, c, id, extra, servers, nil)
	}
	if err != nil {
		return "", err
	}
	if door.membership == auth.Join {
		return s.currentMember(ctx, id, c.UserID, auth.Join)
	}
	via, err := s.letIn(ctx, door, c.UserID)
	if isUnable(err) {
		return s.joinAfar(ctx, c, id, extra, servers, err)
	}
	if err != nil {
		return "", err
	}
	delete(extra, authorisedVia)
	if via != "" {
		extra[authorisedVia] = string(via)
	}
	d, err := s.member(ctx, c, id, c.UserID, auth.Join, extra, true)
	if err != nil {
		return "", err
	}
	d.Given = func(v room.View) error {
		if v.Membership(c.UserID) == auth.Join {
			return errInside // by another request at the same moment
		}
		return nil
	}
	d.Also = func(tx *storage.Tx) error { return inherit(tx, c.UserID, door.predecessor, id) }
	sent, err := s.Rooms.Send(ctx, d)
	if errors.Is(err, errInside) {
		return s.currentMember(ctx, id, c.UserID, auth.Join)
	}
	return sent.EventID, err
}

// Knock asks to be let into a room. Where nobody of ours is in it, the servers via are asked.
//
// spec: client-server-api#knocking-on-rooms
func (s *Service) Knock(ctx context.Context, c Caller, id matrix.RoomID, reason string, via ...matrix.ServerName) error {
	_, err := s.knock(ctx, c, id, with(reason), via)
	return err
}

func (s *Service) knock(ctx context.Context, c Caller, id matrix.RoomID, extra content, servers []matrix.ServerName) (matrix.EventID, error) {
	door, err := s.door(ctx, id, c.UserID)
	if errors.Is(err, room.ErrUnknownRoom) || err == nil && !door.current {
		return s.knockAfar(ctx, c, id, extra, servers)
	}
	if err != nil {
		return "", err
	}
	switch door.membership {
	case auth.Knock:
		return s.currentMember(ctx, id, c.UserID, auth.Knock)
	}
	if err := door.mayKnock(); err != nil {
		return "", err
	}
	return s.sendMember(ctx, c, id, c.UserID, auth.Knock, extra, true)
}

// Leave takes the caller out of a room, refuses an invitation or takes a knock back.
//
// spec: client-server-api#leaving-rooms
func (s *Service) Leave(ctx context.Context, c Caller, id matrix.RoomID, reason string) error {
	_, err := s.leave(ctx, c, id, with(reason))
	return err
}

func (s *Service) leave(ctx context.Context, c Caller, id matrix.RoomID, extra content) (matrix.EventID, error) {
	asked, err := s.askedAfar(ctx, id, c.UserID)
	if err != nil {
		return "", err
	}
	if asked != nil {
		return s.leaveAfar(ctx, c, asked, extra)
	}
	membership, current := "", false
	err = s.Rooms.Look(ctx, id, func(v room.View) { membership, current = v.Membership(c.UserID), s.isTrue(v) })
	if err != nil {
		return "", err
	}
	switch membership {
	case auth.Join, auth.Invite, auth.Knock:
		if !current {
			return s.leaveUnknown(ctx, c, id, extra)
		}
		return s.sendMember(ctx, c, id, c.UserID, auth.Leave, extra, false)
	case auth.Leave:
		return s.currentMember(ctx, id, c.UserID, auth.Leave)
	}
	return "", room.ErrUnknownRoom
}

// Invite invites somebody into a room that the caller is in.
//
// spec: client-server-api#post_matrixclientv3roomsroomidinvite
func (s *Service) Invite(ctx context.Context, c Caller, id matrix.RoomID, target matrix.UserID, reason string) error {
	_, err := s.invite(ctx, c, id, target, with(reason))
	return err
}

func (s *Service) invite(ctx context.Context, c Caller, id matrix.RoomID, target matrix.UserID, extra content) (matrix.EventID, error) {
	if err := s.RequireJoined(ctx, id, c.UserID); err != nil {
		return "", err
	}
	if err := s.mayInvite(ctx, c, target, id); err != nil {
		return "", err
	}
	membership, err := s.membershipOf(ctx, id, target)
	if err != nil {
		return "", err
	}
	known, err := s.knows(ctx, c, target)
	if err != nil {
		return "", err
	}
	if membership == auth.Invite && known {
		return s.currentMember(ctx, id, target, auth.Invite)
	}
	if !s.Rooms.IsLocal(target.Server()) {
		return s.inviteAfar(ctx, c, id, target, extra)
	}
	return s.sendMember(ctx, c, id, target, auth.Invite, extra, true)
}

// mayInvite counts an invitation against the limits, and finds out whether the target takes any. Whether somebody takes
// invitations is told only to those who may know of them; for the others policy has an answer.
//
// spec: client-server-api#invite-permission
func (s *Service) mayInvite(ctx context.Context, c Caller, target matrix.UserID, id matrix.RoomID) error {
	if err := s.limits.invite(c.UserID, target, id); err != nil {
		return err
	}
	known, err := s.knows(ctx, c, target)
	if err != nil || !known || !s.Rooms.IsLocal(target.Server()) {
		return err
	}
	blocked := false
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		blocked, err = takesNone(tx, target)
		return err
	})
	if err == nil && blocked {
		err = matrix.Errorf(http.StatusForbidden, matrix.CodeInviteBlocked, "This person does not take invitations.")
	}
	return err
}

// knows tells whether the caller may know of somebody.
func (s *Service) knows(ctx context.Context, c Caller, target matrix.UserID) (bool, error) {
	p, err := s.Parties.Party(ctx, target)
	if err != nil {
		return false, err
	}
	return s.Policy.Contact(c.Subject, p), nil
}

// Kick makes somebody leave a room.
//
// spec: client-server-api#post_matrixclientv3roomsroomidkick
func (s *Service) Kick(ctx context.Context, c Caller, id matrix.RoomID, target matrix.UserID, reason string) error {
	_, err := s.kick(ctx, c, id, target, with(reason))
	return err
}

func (s *Service) kick(ctx context.Context, c Caller, id matrix.RoomID, target matrix.UserID, extra content) (matrix.EventID, error) {
	if target == c.UserID {
		return s.leave(ctx, c, id, extra)
	}
	may, membership, err := s.overTarget(ctx, id, c.UserID, target)
	switch {
	case err != nil:
		return "", err
	case !may.kick:
		return "", matrix.Forbidden("You may not kick this person.")
	case membership != auth.Join && membership != auth.Invite && membership != auth.Knock:
		return "", matrix.Forbidden("This person is not in the room.")
	}
	return s.sendMember(ctx, c, id, target, auth.Leave, extra, false)
}

// Ban keeps somebody out of a room.
//
// spec: client-server-api#banning-users-in-a-room
func (s *Service) Ban(ctx context.Context, c Caller, id matrix.RoomID, target matrix.UserID, reason string) error {
	_, err := s.ban(ctx, c, id, target, with(reason))
	return err
}

func (s *Service) ban(ctx context.Context, c Caller, id matrix.RoomID, target matrix.UserID, extra content) (matrix.EventID, error) {
	may, membership, err := s.overTarget(ctx, id, c.UserID, target)
	switch {
	case err != nil:
		return "", err
	case !may.ban:
		return "", matrix.Forbidden("You may not ban this person.")
	case membership == auth.Ban && len(extra) == 0:
		return s.currentMember(ctx, id, target, auth.Ban)
	}
	return s.sendMember(ctx, c, id, target, auth.Ban, extra, false)
}

// Unban lets somebody who was banned come again.
//
// spec: client-server-api#post_matrixclientv3roomsroomidunban
func (s *Service) Unban(ctx context.Context, c Caller, id matrix.RoomID, target matrix.UserID, reason string) error {
	_, err := s.unban(ctx, c, id, target, with(reason))
	return err
}

func (s *Service) unban(ctx context.Context, c Caller, id matrix.RoomID, target matrix.UserID, extra content) (matrix.EventID, error) {
	may, membership, err := s.overTarget(ctx, id, c.UserID, target)
	switch {
	case err != nil:
		return "", err
	case !may.ban || !may.kick:
		return "", matrix.Forbidden("You may not lift this ban.")
	case membership != auth.Ban:
		return "", matrix.Forbidden("This person is not banned.")
	}
	return s.sendMember(ctx, c, id, target, auth.Leave, extra, false)
}

// powers is what a member may do to another.
type powers struct{ kick, ban bool }

// overTarget returns what a member of a room may do to somebody, and the membership of that one.
func (s *Service) overTarget(ctx context.Context, id matrix.RoomID, user, target matrix.UserID) (may powers, membership string, err error) {
	inside := false
	err = s.Rooms.Look(ctx, id, func(v room.View) {
		inside = v.Membership(user) == auth.Join
		membership = v.Membership(target)
		may = powers{kick: v.Rules().CanKick(user, target), ban: v.Rules().CanBan(user, target)}
	})
	if err == nil && !inside {
		err = room.ErrUnknownRoom
	}
	return may, membership, err
}

// SetState is the way of a membership that a client writes as a state event: the same as that of the endpoint for it.
//
// spec: client-server-api#put_matrixclientv3roomsroomidstateeventtypestatekey
func (s *Service) SetState(ctx context.Context, c Caller, id matrix.RoomID, key string, body jsontext.Value) (matrix.EventID, error) {
	extra := content{}
	var members map[string]jsontext.Value
	if err := json.Unmarshal(body, &members); err != nil {
		return "", matrix.BadJSON("The content of a membership must be an object.")
	}
	membership := stringIn(body, "membership")
	for k, v := range members {
		extra[k] = v
	}
	delete(extra, "membership")
	delete(extra, authorisedVia)
	target, err := matrix.ParseUserID(key)
	if err != nil {
		return "", matrix.InvalidParam("The state key of a membership must be a user ID.")
	}
	own := target == c.UserID
	switch {
	case membership == auth.Join && own:
		return s.setJoin(ctx, c, id, extra)
	case membership == auth.Knock && own:
		return s.knock(ctx, c, id, extra, nil)
	case membership == auth.Leave && own:
		return s.leave(ctx, c, id, extra)
	case membership == auth.Invite && !own:
		return s.invite(ctx, c, id, target, extra)
	case membership == auth.Ban && !own:
		return s.ban(ctx, c, id, target, extra)
	case membership == auth.Leave:
		return s.setLeave(ctx, c, id, target, extra)
	case membership == auth.Join, membership == auth.Knock, membership == auth.Invite, membership == auth.Ban:
		if err := s.RequireJoined(ctx, id, c.UserID); err != nil {
			return "", err
		}
		return "", matrix.Forbidden("This membership cannot be set for this user.")
	}
	return "", matrix.BadJSON("The membership must be join, invite, knock, leave or ban.")
}

// setJoin joins, or changes what a member who is in the room is called there.
func (s *Service) setJoin(ctx context.Context, c Caller, id matrix.RoomID, extra content) (matrix.EventID, error) {
	membership, err := s.membershipOf(ctx, id, c.UserID)
	if errors.Is(err, room.ErrUnknownRoom) || err == nil && membership != auth.Join {
		return s.join(ctx, c, id, extra, nil)
	}
	if err != nil {
		return "", err
	}
	return s.sendMember(ctx, c, id, c.UserID, auth.Join, extra, true)
}

// setLeave kicks, or lifts a ban.
func (s *Service) setLeave(ctx context.Context, c Caller, id matrix.RoomID, target matrix.UserID, extra content) (matrix.EventID, error) {
	_, membership, err := s.overTarget(ctx, id, c.UserID, target)
	if err != nil {
		return "", err
	}
	if membership == auth.Ban {
		return s.unban(ctx, c, id, target, extra)
	}
	return s.kick(ctx, c, id, target, extra)
}

// Forget hides a room that the caller has left from all of the caller's lists.
//
// spec: client-server-api#post_matrixclientv3roomsroomidforget
func (s *Service) Forget(ctx context.Context, c Caller, id matrix.RoomID) error {
	var m storage.Member
	var afar storage.RemoteMember
	var ok, far bool
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		if m, ok, err = tx.FindMember(id, c.UserID); err == nil {
			afar, far, err = tx.FindRemoteMember(id, c.UserID)
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case far && !afar.Open():
		return s.forgetAfar(ctx, c, &afar)
	case !ok && !far:
		return room.ErrUnknownRoom
	case far || m.Membership != auth.Leave && m.Membership != auth.Ban:
		return matrix.Errorf(http.StatusBadRequest, matrix.CodeUnknown, "You must leave the room before you can forget it.")
	case m.Forgotten:
		return nil
	}
	facts, audience, err := s.Rooms.PolicyFacts(ctx, id, c.UserID)
	if err != nil {
		return err
	}
	if _, err := s.decide(ctx, c, policy.Input{Point: policy.RoomLeave, Room: facts, Audience: audience}); err != nil {
		return err
	}
	return s.DB.Update(ctx, func(tx *storage.Tx) error { _, err := tx.Forget(id, c.UserID); return err })
}

// member is the draft of a membership. named adds the display name and avatar of a user of ours where the content has none.
func (s *Service) member(ctx context.Context, c Caller, id matrix.RoomID, target matrix.UserID, membership string, extra content, named bool) (room.Draft, error) {
	if named && s.Rooms.IsLocal(target.Server()) {
		p, err := s.profile(ctx, target)
		if err != nil {
			return room.Draft{}, err
		}
		for k, v := range p {
			if _, given := extra[k]; !given {
				extra[k] = v
			}
		}
	}
	extra["membership"] = membership
	body, err := object(extra)
	if err != nil {
		return room.Draft{}, err
	}
	return c.draft(id, typeMember, string(target), body), nil
}

func (s *Service) sendMember(ctx context.Context, c Caller, id matrix.RoomID, target matrix.UserID, membership string, extra content, named bool) (matrix.EventID, error) {
	d, err := s.member(ctx, c, id, target, membership, extra, named)
	if err != nil {
		return "", err
	}
	sent, err := s.Rooms.Send(ctx, d)
	return sent.EventID, err
}

// currentMember is the event that says what a membership is, once it is on the disk.
func (s *Service) currentMember(ctx context.Context, id matrix.RoomID, user matrix.UserID, membership string) (matrix.EventID, error) {
	var durable func() error
	if err := s.Rooms.Look(ctx, id, func(v room.View) { durable = v.Durable() }); err != nil {
		return "", err
	}
	again := fmt.Errorf("%w: %w", room.ErrBusy, matrix.Errorf(http.StatusServiceUnavailable, matrix.CodeUnknown, "The room has changed meanwhile. Please try again.").With("retry_after_ms", 500))
	if durable() != nil {
		return "", again
	}
	var m storage.Member
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) { m, _, err = tx.FindMember(id, user); return err })
	if err == nil && m.Membership != membership {
		return "", again
	}
	return m.EventID, err
}
