package membership

import (
	"context"
	"errors"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

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

// maxRemoteInvites is how many open invitations into remote rooms one user has at most.
const maxRemoteInvites = 1000

// ReceiveInvite takes an invitation of a user of the tenant as by a user of origin, and returns it signed by the tenant. A room
// that somebody of ours is in takes it as any event; else the user alone is told. Whom policy keeps apart, and who does not exist, is
// refused in the same words.
//
// spec: server-server-api#put_matrixfederationv2inviteroomideventid
func (s *Service) ReceiveInvite(ctx context.Context, as, origin matrix.ServerName, id matrix.RoomID, eventID matrix.EventID, in federation.Invite) ([]byte, error) {
	v, ok := matrix.FindRoomVersion(in.RoomVersion)
	if !ok {
		return nil, matrix.Errorf(http.StatusBadRequest, matrix.CodeIncompatibleRoom, "This server does not know room version %.20q.", in.RoomVersion).
			With("room_version", in.RoomVersion)
	}
	e, target, err := s.readInvite(ctx, v, as, origin, id, eventID, in.Event)
	if err != nil {
		return nil, err
	}
	told := s.readStripped(ctx, v, id, in.InviteRoomState)
	if told.err != nil {
		return nil, told.err
	}
	known := hearsay{version: v, federate: true, direct: event.Member(e).IsDirect}
	for i := range told.list {
		t := &told.list[i]
		known.learn(t.Type, *t.StateKey, t.Sender, t.Content) // who has set state may be gone; what they have set is told to nobody who may not know them
	}
	if !known.federate && known.creator.Server() != as {
		return nil, matrix.Forbidden("Nobody of another server can be in this room.")
	}
	if err := s.mayBeInvited(ctx, as, origin, e, target, &known); err != nil {
		return nil, err
	}
	signed := signing.SignEvent(e, as, s.Rooms.Keys[as])
	if err := s.keepInvite(ctx, as, origin, signed, target, told.list); err != nil {
		return nil, err
	}
	return event.Federation(signed), nil
}

// readInvite checks that an event is an invitation of a user of ours by a user of the server that sends it, and nothing else: what
// it is not must never be signed.
func (s *Service) readInvite(ctx context.Context, v *matrix.RoomVersion, as, origin matrix.ServerName, id matrix.RoomID, eventID matrix.EventID, pdu []byte) (e *event.Event, target matrix.UserID, err error) {
	if e, err = event.Parse(v, pdu); err != nil {
		return nil, "", err
	}
	switch {
	case e.RoomID != id || e.ID != eventID:
		return nil, "", matrix.InvalidParam("The event is not the one that the path names.")
	case e.HashMismatch:
		return nil, "", matrix.InvalidParam("The hash of the event is wrong.")
	case e.Type != typeMember || e.StateKey == nil || event.Membership(e) != auth.Invite:
		return nil, "", matrix.InvalidParam("The event is no invitation.")
	case e.Sender.Server() != origin:
		return nil, "", matrix.InvalidParam("The sender is not a user of the server that sends the invitation.")
	}
	if target, err = matrix.ParseUserID(*e.StateKey); err != nil || target.Server() != as || !s.Rooms.IsLocal(as) {
		return nil, "", matrix.InvalidParam("The invited user is not of this server.")
	}
	for _, server := range signing.RequiredServers(e) {
		if err := s.checkSignature(ctx, e, server); err != nil {
			return nil, "", matrix.InvalidParam("The event is not signed by %s.", server)
		}
	}
	return e, target, nil
}

// errNotInvitable is the answer to an invitation that policy forbids, or of somebody who does not exist.
func errNotInvitable(d policy.Decision) *matrix.Error {
	return matrix.Forbidden("This user cannot be invited.").With("org.hansa.decision_id", d.ID)
}

// mayBeInvited asks policy and the user's own wishes.
func (s *Service) mayBeInvited(ctx context.Context, as, origin matrix.ServerName, e *event.Event, target matrix.UserID, known *hearsay) error {
	known.person(e.Sender)
	facts, audience, err := s.invitedInto(ctx, as, e, known)
	if err != nil {
		return err
	}
	parties, err := s.Parties.Parties(ctx, []matrix.UserID{e.Sender, target})
	if err != nil {
		return err
	}
	d := s.Policy.Decide(ctx, &policy.Input{Point: policy.RoomInvite, Time: s.Now(), Tenant: policy.Tenant{Name: string(as)}, Subject: parties[e.Sender],
		Target: parties[target], Room: facts, Audience: audience, Server: &policy.Server{Name: string(origin)}, Request: &policy.Request{Via: "federation"}})
	if d.Err != nil {
		return d.Error()
	}
	users, blocked, full := []*storage.User(nil), false, 0
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		if users, err = tx.LoadUsers([]matrix.UserID{target}); err != nil {
			return err
		}
		if blocked, err = takesNone(tx, target); err == nil {
			full, err = tx.CountRemoteInvites(target)
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case !d.Allow || len(users) == 0 || users[0].Deactivated:
		return errNotInvitable(d)
	case blocked:
		return matrix.Errorf(http.StatusForbidden, matrix.CodeInviteBlocked, "This person does not take invitations.")
	case full >= maxRemoteInvites:
		return matrix.Errorf(http.StatusTooManyRequests, matrix.CodeLimitExceeded, "This person has too many invitations.").With("retry_after_ms", 3600000)
	}
	return s.limits.invite(e.Sender, target, e.RoomID)
}

// invitedInto are the facts about the room: those that are known here where somebody of ours is in it, else what is told.
func (s *Service) invitedInto(ctx context.Context, as matrix.ServerName, e *event.Event, known *hearsay) (*policy.Room, *policy.Audience, error) {
	in, err := s.isIn(ctx, e.RoomID)
	if err != nil {
		return nil, nil, err
	}
	if in {
		return s.Rooms.PolicyFacts(ctx, e.RoomID, e.Sender)
	}
	return s.hearsayFacts(ctx, known, e.RoomID, as)
}

// keepInvite stores an invitation where the user finds it.
func (s *Service) keepInvite(ctx context.Context, as, origin matrix.ServerName, e *event.Event, target matrix.UserID, told []stripped) error {
	in, err := s.isIn(ctx, e.RoomID)
	if err != nil {
		return err
	}
	if in {
		// The event comes once more, with the others of the room; taking it now makes it known at once.
		switch err := s.Rooms.Ingest(ctx, as, origin, e.RoomID, [][]byte{event.Federation(e)})[0]; {
		case errors.Is(err, room.ErrUndecided):
			return matrix.Errorf(http.StatusServiceUnavailable, matrix.CodeUnknown, "The policy cannot decide at present; try again later.").With("retry_after_ms", 5000)
		case errors.Is(err, storage.ErrUnavailable):
			return storage.Unavailable(err)
		case err != nil:
			s.log.WithError(err).WithField("room_id", e.RoomID).WithField("origin", origin).Info("an invitation into a room did not enter it yet")
		}
		return nil
	}
	return s.DB.Update(ctx, func(tx *storage.Tx) error {
		if old, ok, err := tx.FindRemoteMember(e.RoomID, target); err != nil || ok && old.EventID == e.ID {
			return err // sent again
		}
		return tx.PutRemoteMember(storage.RemoteMember{RoomID: e.RoomID, UserID: target, Membership: auth.Invite, Sender: e.Sender, Version: e.Version,
			EventID: e.ID, Via: origin, Event: event.Federation(e), Stripped: encodeStripped(told)})
	})
}

// told is what another server tells of a room.
type told struct {
	list []stripped
	// err is why an invitation with it must be refused.
	err error
}

// readStripped reads the state that comes with an invitation or a knock: whole events, or what servers of old age send in their place,
// fewer members of each, which is as true as who sent it. From room version 12 on the create event must be there as a whole, no whole
// event may be wrong, and one whose signature cannot be checked is left out.
// differs: other events of those versions may be of the old form; servers in use send them so.
//
// spec: server-server-api#put_matrixfederationv2inviteroomideventid
func (s *Service) readStripped(ctx context.Context, v *matrix.RoomVersion, id matrix.RoomID, list []jsontext.Value) told {
	var out told
	created := false
	for _, pdu := range list[:min(len(list), maxStripped)] {
		e, err := event.ParseWith(v, pdu, event.ParseOptions{AnyNumberOfParents: true})
		if err != nil || e.StateKey == nil || len(e.Signatures) <= 2 {
			if st, ok := oldStripped(pdu); ok && !(v.RoomIDHash && st.Type == auth.TypeCreate) {
				out.list = append(out.list, st)
			}
			continue
		}
		if err := s.checkTold(ctx, e, id); err != nil {
			if out.err == nil && v.RoomIDHash && !errors.Is(err, errNoKey) {
				out.err = matrix.InvalidParam("invite_room_state has an event of another room, or one that its sender's server has not signed.")
			}
			continue
		}
		created = created || e.Is(auth.TypeCreate, "")
		out.list = append(out.list, stripped{e.Type, e.StateKey, e.Sender, e.Content})
	}
	if out.err == nil && v.RoomIDHash && !created {
		out.err = matrix.Errorf(http.StatusBadRequest, matrix.CodeMissingParam, "invite_room_state lacks the create event.")
	}
	return out
}

// checkTold checks one whole event of what another server tells of a room. Where the ID of the room is the hash of its create event, that
// one is proved by it; in older versions signatures are not looked at, for half of the events would have none.
func (s *Service) checkTold(ctx context.Context, e *event.Event, id matrix.RoomID) error {
	switch {
	case e.RoomID != id:
		return errors.New("another room")
	case !e.Version.RoomIDHash || e.Is(auth.TypeCreate, ""):
		return nil
	}
	return s.checkSignature(ctx, e, e.Sender.Server())
}

// oldStripped reads one event of stripped state in the form for clients.
func oldStripped(object jsontext.Value) (stripped, bool) {
	var st stripped
	if json.Unmarshal(object, &st) != nil || st.StateKey == nil || st.Type == "" || len(st.Type) > event.MaxKeyLength || len(*st.StateKey) > event.MaxKeyLength {
		return st, false
	}
	if _, err := matrix.ParseUserID(string(st.Sender)); err != nil {
		return st, false
	}
	c, err := canonicaljson.Canonicalize(st.Content, false)
	if err != nil || len(c) == 0 || c[0] != '{' {
		return st, false
	}
	st.Content = c
	return st, true
}

// takesNone tells whether a user wants no invitations.
//
// spec: client-server-api#invite-permission
func takesNone(tx *storage.Tx, user matrix.UserID) (bool, error) {
	d, err := tx.LoadAccountDatum(user, "", "m.invite_permission_config")
	if errors.Is(err, storage.ErrNotFound) {
		return false, nil
	}
	return err == nil && stringIn(d.Content, "default_action") == "block", err
}
