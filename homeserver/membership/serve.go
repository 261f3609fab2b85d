package membership

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/matrix/signing"
	"hansa/policy"
)

// visit is a user of another server who wants to come into a room, or out of it, with our help.
type visit struct {
	as, origin matrix.ServerName
	room       matrix.RoomID
	user       matrix.UserID
	door       *door
}

// errNoSuchRoom is the answer to other servers about rooms that the tenant they ask is not in, whether they exist or not.
func errNoSuchRoom() *matrix.Error { return matrix.NotFound("This room is not known here.") }

// receive lets a user of another server in as far as the tenant that is asked is in the room. A server acts for its own users alone.
func (s *Service) receive(ctx context.Context, as, origin matrix.ServerName, id matrix.RoomID, user matrix.UserID) (*visit, error) {
	if user.Server() != origin || s.Rooms.IsLocal(origin) {
		return nil, matrix.Forbidden("A server acts for its own users only.")
	}
	in, err := s.Rooms.InRoom(ctx, id, as)
	if err != nil {
		return nil, err
	}
	if !in {
		return nil, errNoSuchRoom()
	}
	v := &visit{as: as, origin: origin, room: id, user: user}
	if v.door, err = s.door(ctx, id, user); errors.Is(err, room.ErrUnknownRoom) {
		return nil, errNoSuchRoom()
	}
	if err == nil {
		v.door.prefer = as
		if !v.door.federates {
			err = matrix.Forbidden("Nobody of another server can be in this room.")
		}
	}
	return v, err
}

// speaks is nil where the asking server knows the version of the room. None means version 1.
func (v *visit) speaks(versions []string) error {
	if len(versions) == 0 {
		versions = []string{"1"}
	}
	if slices.Contains(versions, v.door.version.ID) {
		return nil
	}
	return matrix.Errorf(http.StatusBadRequest, matrix.CodeIncompatibleRoom, "The room has version %s, which your server does not know.", v.door.version.ID).
		With("room_version", v.door.version.ID)
}

// prototype is the template of the membership that the visit is for.
func (s *Service) prototype(ctx context.Context, v *visit, extra content, membership string) (*federation.Template, error) {
	extra["membership"] = membership
	body, err := object(extra)
	if err != nil {
		return nil, err
	}
	key := string(v.user)
	version, pdu, err := s.Rooms.Prototype(ctx, room.Draft{RoomID: v.room, Sender: v.user, Type: typeMember, StateKey: &key, Content: body})
	return &federation.Template{RoomVersion: version, Event: pdu}, err
}

// MakeJoin returns the template for the join of a user of another server. Where the room is restricted, it names who lets the user in.
//
// spec: server-server-api#get_matrixfederationv1make_joinroomiduserid
func (s *Service) MakeJoin(ctx context.Context, as, origin matrix.ServerName, id matrix.RoomID, user matrix.UserID, versions []string) (*federation.Template, error) {
	v, err := s.receive(ctx, as, origin, id, user)
	if err != nil {
		return nil, err
	}
	if err := v.speaks(versions); err != nil {
		return nil, err
	}
	if err := s.Rooms.MayEnter(ctx, id, user, auth.Join); err != nil {
		return nil, err
	}
	host, err := s.admit(ctx, v)
	if err != nil {
		return nil, err
	}
	extra := content{}
	if host != "" {
		extra[authorisedVia] = string(host)
	}
	return s.prototype(ctx, v, extra, auth.Join)
}

// admit finds out who lets a visitor in; nobody needs to let in who is in already.
//
// spec: server-server-api#restricted-rooms
func (s *Service) admit(ctx context.Context, v *visit) (matrix.UserID, error) {
	if v.door.membership == auth.Join {
		return "", nil
	}
	return s.letIn(ctx, v.door, v.user)
}

// SendJoin takes the join of a user of another server into the room, and returns the state before it, always the whole of it: a server may
// have asked to be spared the members, and may get them all the same. A join that one of ours vouches for is signed by that one's tenant,
// if the conditions still hold.
//
// spec: server-server-api#put_matrixfederationv2send_joinroomideventid
func (s *Service) SendJoin(ctx context.Context, as, origin matrix.ServerName, id matrix.RoomID, eventID matrix.EventID, pdu []byte, _ bool) (*federation.JoinAnswer, error) {
	v, e, err := s.visitor(ctx, as, origin, id, eventID, pdu, auth.Join)
	if err != nil {
		return nil, err
	}
	server, vouched := signing.AuthorisingServer(e)
	key, ours := s.Rooms.Keys[server]
	if vouched && ours {
		if err := s.vouch(ctx, v, e); err != nil {
			return nil, err
		}
		e = signing.SignEvent(e, server, key)
	}
	stored, err := s.Rooms.Accept(ctx, origin, id, event.Federation(e))
	if err != nil {
		return nil, err
	}
	state, chain, err := s.Rooms.StateFor(ctx, as, origin, id, stored.ID)
	if err != nil {
		return nil, err
	}
	facts, _, err := s.Rooms.PolicyFacts(ctx, id, v.user)
	if err != nil {
		return nil, err
	}
	answer := &federation.JoinAnswer{Event: event.Federation(stored.Event), State: values(state), AuthChain: values(chain)}
	for _, name := range facts.Servers {
		answer.ServersInRoom = append(answer.ServersInRoom, matrix.ServerName(name))
	}
	return answer, nil
}

// vouch is nil where one of ours may let the visitor in now: by policy, by the conditions of the room, and as the member it says.
func (s *Service) vouch(ctx context.Context, v *visit, e *event.Event) error {
	if err := s.Rooms.MayEnter(ctx, v.room, v.user, auth.Join); err != nil {
		return err
	}
	if _, err := s.admit(ctx, v); err != nil {
		return err
	}
	host := event.Member(e).AuthorisedVia
	may := false
	err := s.Rooms.Look(ctx, v.room, func(v room.View) { may = v.Membership(host) == auth.Join && v.Rules().CanInvite(host) })
	if err == nil && !may {
		err = matrix.Errorf(http.StatusBadRequest, matrix.CodeUnableToGrantJoin, "This user cannot let anybody into the room.")
	}
	return err
}

// visitor reads the membership event of a visitor: it is what the path says, about its sender, of the asking server, and nothing else.
func (s *Service) visitor(ctx context.Context, as, origin matrix.ServerName, id matrix.RoomID, eventID matrix.EventID, pdu []byte, membership string) (*visit, *event.Event, error) {
	in, err := s.Rooms.InRoom(ctx, id, as)
	if err != nil {
		return nil, nil, err
	}
	if !in {
		return nil, nil, errNoSuchRoom()
	}
	var version *matrix.RoomVersion
	if err := s.Rooms.Look(ctx, id, func(v room.View) { version = v.Version() }); err != nil {
		return nil, nil, err
	}
	e, err := event.Parse(version, pdu)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case e.RoomID != id || e.ID != eventID:
		return nil, nil, matrix.InvalidParam("The event is not the one that the path names.")
	case e.HashMismatch:
		return nil, nil, matrix.InvalidParam("The hash of the event is wrong.")
	case e.Type != typeMember || e.StateKey == nil || event.Membership(e) != membership:
		return nil, nil, matrix.InvalidParam("The event is no %s.", membership)
	case *e.StateKey != string(e.Sender):
		return nil, nil, matrix.Forbidden("Nobody can do this for others.")
	}
	v, err := s.receive(ctx, as, origin, id, e.Sender)
	return v, e, err
}

// MakeLeave returns the template by which a user of another server leaves, refuses an invitation or takes a knock back.
//
// spec: server-server-api#get_matrixfederationv1make_leaveroomiduserid
func (s *Service) MakeLeave(ctx context.Context, as, origin matrix.ServerName, id matrix.RoomID, user matrix.UserID) (*federation.Template, error) {
	v, err := s.receive(ctx, as, origin, id, user)
	if err != nil {
		return nil, err
	}
	switch v.door.membership {
	case auth.Join, auth.Invite, auth.Knock:
	default:
		return nil, matrix.Forbidden("This user is not in the room.")
	}
	if err := s.decideVisit(ctx, v, policy.RoomLeave); err != nil {
		return nil, err
	}
	return s.prototype(ctx, v, content{}, auth.Leave)
}

// decideVisit asks the policy of the tenant that is addressed.
func (s *Service) decideVisit(ctx context.Context, v *visit, p policy.Point) error {
	party, err := s.Parties.Party(ctx, v.user)
	if err != nil {
		return err
	}
	facts, audience, err := s.Rooms.PolicyFacts(ctx, v.room, v.user)
	if err != nil {
		return err
	}
	d := s.Policy.Decide(ctx, &policy.Input{Point: p, Time: s.Now(), Tenant: policy.Tenant{Name: string(v.as)}, Subject: party, Room: facts, Audience: audience,
		Server: &policy.Server{Name: string(v.origin)}, Request: &policy.Request{Via: "federation"}})
	if e := d.Error(); e != nil {
		return e
	}
	return nil
}

// SendLeave takes such a leave into the room.
//
// spec: server-server-api#put_matrixfederationv2send_leaveroomideventid
func (s *Service) SendLeave(ctx context.Context, as, origin matrix.ServerName, id matrix.RoomID, eventID matrix.EventID, pdu []byte) error {
	_, e, err := s.visitor(ctx, as, origin, id, eventID, pdu, auth.Leave)
	if err == nil {
		_, err = s.Rooms.Accept(ctx, origin, id, event.Federation(e))
	}
	return err
}

// MakeKnock returns the template for the knock of a user of another server.
//
// spec: server-server-api#get_matrixfederationv1make_knockroomiduserid
func (s *Service) MakeKnock(ctx context.Context, as, origin matrix.ServerName, id matrix.RoomID, user matrix.UserID, versions []string) (*federation.Template, error) {
	v, err := s.receive(ctx, as, origin, id, user)
	if err != nil {
		return nil, err
	}
	if err := v.speaks(versions); err != nil {
		return nil, err
	}
	if err := s.Rooms.MayEnter(ctx, id, user, auth.Knock); err != nil {
		return nil, err
	}
	if err := v.door.mayKnock(); err != nil {
		return nil, err
	}
	return s.prototype(ctx, v, content{}, auth.Knock)
}

// SendKnock takes such a knock into the room, and returns what the knocking user may know of it.
//
// spec: server-server-api#put_matrixfederationv1send_knockroomideventid
func (s *Service) SendKnock(ctx context.Context, as, origin matrix.ServerName, id matrix.RoomID, eventID matrix.EventID, pdu []byte) (*federation.KnockAnswer, error) {
	v, e, err := s.visitor(ctx, as, origin, id, eventID, pdu, auth.Knock)
	if err != nil {
		return nil, err
	}
	if v.door.membership != auth.Knock { // sent again
		if err := v.door.mayKnock(); err != nil {
			return nil, err
		}
	}
	if _, err := s.Rooms.Accept(ctx, origin, id, event.Federation(e)); err != nil {
		return nil, err
	}
	state, err := s.tellState(ctx, id, v.user)
	return &federation.KnockAnswer{KnockRoomState: state}, err
}

func values(list [][]byte) []jsontext.Value {
	out := make([]jsontext.Value, len(list))
	for i, b := range list {
		out[i] = b
	}
	return out
}
