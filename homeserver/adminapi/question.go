package adminapi

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/policy"
)

// QuestionFacts finds out about those who take part in a Question.
type QuestionFacts struct {
	Now func() time.Time
	// Hosts tells whether a domain is hosted here.
	Hosts func(name string) bool
	// Party tells who a user is.
	Party func(matrix.UserID) (*policy.Party, error)
	// Room tells about a room and who is in it; nil where no rooms are known.
	Room func(id matrix.RoomID, user matrix.UserID) (*policy.Room, *policy.Audience, error)
}

// Input is the question as the policy engine wants it.
func (b *Question) Input(f QuestionFacts) (*policy.Input, error) {
	if !slices.ContainsFunc(policy.Points(), func(p policy.PointInfo) bool { return p.Point == b.Point }) {
		return nil, matrix.InvalidParam("There is no decision point %.50q; `hansa policy points` lists them.", b.Point)
	}
	subject, err := f.party("subject", b.Subject)
	if err != nil {
		return nil, err
	}
	if subject == nil {
		return nil, matrix.Errorf(http.StatusBadRequest, matrix.CodeMissingParam, "Say who the subject is.")
	}
	if b.IP != "" {
		subject = subject.With(subject.Device, &policy.Network{IP: b.IP})
	}
	in := &policy.Input{Point: b.Point, Time: f.Now(), Tenant: policy.Tenant{Name: subject.Tenant}, Subject: subject,
		Request: &policy.Request{IP: b.IP, Via: "client"}}
	if in.Target, err = f.party("target", b.Target); err != nil {
		return nil, err
	}
	if b.Server != "" {
		in.Server = &policy.Server{Name: b.Server, Local: f.Hosts(b.Server)}
	}
	switch {
	case b.Room != "":
		err = b.inRoom(f, in)
	case aboutRooms(b.Point):
		err = b.inNewRoom(f, in)
	}
	if err != nil {
		return nil, err
	}
	b.act(in)
	return in, nil
}

// party finds who an id stands for.
func (f QuestionFacts) party(member, id string) (*policy.Party, error) {
	if id == "" {
		return nil, nil
	}
	user, err := matrix.ParseUserID(id)
	if err != nil {
		return nil, matrix.InvalidParam("The %s %.100q is not a user ID.", member, id)
	}
	return f.Party(user)
}

func noRoom(id string) error { return matrix.NotFound("There is no room %.100q.", id) }

// inRoom puts the question into a room that exists.
func (b *Question) inRoom(f QuestionFacts, in *policy.Input) error {
	id, err := matrix.ParseRoomID(b.Room)
	if err != nil {
		return matrix.InvalidParam("%.100q is not a room ID.", b.Room)
	}
	if f.Room == nil {
		return matrix.InvalidParam("Rooms are known to a running server only.")
	}
	in.Room, in.Audience, err = f.Room(id, matrix.UserID(in.Subject.ID))
	if errors.Is(err, room.ErrUnknownRoom) {
		return noRoom(b.Room)
	}
	return err
}

// inNewRoom puts the question into a private room that the subject has made; or, where the subject wants to come in, one that the people
// of With are in.
func (b *Question) inNewRoom(f QuestionFacts, in *policy.Input) error {
	r := &policy.Room{Version: matrix.DefaultRoomVersion, Tenant: in.Subject.Tenant, Creator: in.Subject.ID, JoinRule: "invite",
		HistoryVisibility: "shared", Federate: true, Pools: []string{}, Labels: []string{}, Servers: []string{}, Tenants: []string{}}
	in.Room, in.Audience = r, policy.NewAudience()
	var inside []*policy.Party
	if b.Point != policy.RoomJoin && b.Point != policy.RoomKnock && b.Point != policy.RoomCreate {
		r.Membership = "join"
		inside = append(inside, in.Subject)
	}
	for _, id := range b.With {
		p, err := f.party("member", id)
		if err != nil {
			return err
		}
		inside = append(inside, p)
	}
	if r.Membership == "" && len(inside) > 0 {
		r.Tenant, r.Creator = inside[0].Tenant, inside[0].ID
	}
	for _, p := range inside {
		in.Audience.Add(p)
		r.Servers = append(r.Servers, p.Tenant)
		if f.Hosts(p.Tenant) {
			r.Tenants = append(r.Tenants, p.Tenant)
		}
	}
	r.Members = len(inside)
	slices.Sort(r.Servers)
	slices.Sort(r.Tenants)
	r.Servers, r.Tenants = slices.Compact(r.Servers), slices.Compact(r.Tenants)
	return nil
}

// act fills in what would be done.
func (b *Question) act(in *policy.Input) {
	switch in.Point {
	case policy.AdminAction, policy.PolicyChange, policy.PartnerChange:
		in.Admin = &policy.Admin{Action: b.Action, Tenant: in.Tenant.Name}
	case policy.AccountLogin, policy.AccountManage, policy.AccountRegister, policy.ProfileWrite:
		in.Account = &policy.Account{Username: matrix.UserID(in.Subject.ID).Localpart(), Field: b.Action, Via: "password"}
	case policy.MediaUpload, policy.MediaDownload:
		in.Media = &policy.Media{Server: in.Subject.Tenant, MimeType: b.MimeType, Size: b.Size}
		if in.Target != nil {
			in.Media.Server = in.Target.Tenant
		}
	case policy.EventSend, policy.EventReceive, policy.EventRedact, policy.RoomState, policy.ToDeviceSend:
		in.Event = &policy.Event{Type: b.EventType, MsgType: b.MsgType, MimeType: b.MimeType, Size: int(min(b.Size, 1<<30)),
			Encrypted: b.EventType == "m.room.encrypted", Domains: []string{}}
		if in.Event.Type == "" {
			in.Event.Type = "m.room.message"
		}
	case policy.RoomInvite, policy.RoomJoin, policy.RoomKnock:
		in.Event = &policy.Event{Type: "m.room.member", Membership: strings.TrimPrefix(string(in.Point), "room."), Domains: []string{}}
	}
}

func aboutRooms(p policy.Point) bool {
	for _, prefix := range []string{"room.", "event.", "typing.", "receipt.", "search."} {
		if strings.HasPrefix(string(p), prefix) {
			return true
		}
	}
	return p == policy.DirectoryRooms
}
