package membership

import (
	"context"
	"errors"
	"net/http"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/storage"
)

// door is what somebody who wants to come into a room must know of it.
type door struct {
	version    *matrix.RoomVersion
	membership string // of who wants to come in
	rule       string
	// allow are the rooms whose members a restricted rule lets in; host are members who may let others in, by server, and tenant
	// is the server of the room's creator.
	allow       []matrix.RoomID
	host        map[matrix.ServerName]matrix.UserID
	tenant      matrix.ServerName
	predecessor matrix.RoomID
	// current tells whether what is known of the room here is how it is; else only another server can help.
	current   bool
	federates bool
	// prefer is the tenant whose member is to let others in, if it can.
	prefer matrix.ServerName
}

func (s *Service) door(ctx context.Context, id matrix.RoomID, user matrix.UserID) (*door, error) {
	d := &door{}
	ours := false
	err := s.Rooms.Look(ctx, id, func(v room.View) {
		r := v.Rules()
		d.version, d.membership, d.rule, d.tenant = v.Version(), v.Membership(user), r.JoinRule(), r.Create().Sender.Server()
		ours, _ = s.inside(v)
		d.predecessor, d.current, d.federates = predecessorOf(r.Create()), s.isTrue(v), r.Federates()
		if !d.restricted() {
			return
		}
		if e := v.State(typeJoinRules, ""); e != nil {
			d.allow = auth.AllowedRooms(e.Content)
		}
		d.host = map[matrix.ServerName]matrix.UserID{}
		for u, membership := range v.Members() {
			if membership == auth.Join && s.Rooms.IsLocal(u.Server()) && r.CanInvite(u) {
				if best, ok := d.host[u.Server()]; !ok || u < best { // the same one every time
					d.host[u.Server()] = u
				}
			}
		}
	})
	if err == nil && d.current && !ours { // it was empty; whoever has invited the user since knows better
		var asked *storage.RemoteMember
		asked, err = s.askedAfar(ctx, id, user)
		d.current = asked == nil
	}
	return d, err
}

func (d *door) restricted() bool {
	return d.rule == auth.JoinRuleRestricted && d.version.Restricted || d.rule == auth.JoinRuleKnockRestricted && d.version.KnockRestricted
}

// letIn finds out whether somebody may come in as far as the join rule goes, and who lets them in, where the rule wants that.
//
// spec: client-server-api#restricted-rooms
// spec: rooms/v8
func (s *Service) letIn(ctx context.Context, d *door, user matrix.UserID) (via matrix.UserID, err error) {
	switch {
	case d.membership == auth.Invite, d.rule == auth.JoinRulePublic && d.membership != auth.Ban:
		return "", nil
	case d.membership == auth.Ban || !d.restricted():
		return "", ErrNoEntry()
	}
	known := false
	for _, id := range d.allow {
		membership, current := "", false
		err := s.Rooms.Look(ctx, id, func(v room.View) { membership, current = v.Membership(user), s.isTrue(v) })
		switch {
		case errors.Is(err, room.ErrUnknownRoom) || err == nil && !current:
			continue
		case err != nil:
			return "", err
		}
		if known = true; membership == auth.Join {
			return d.chooseHost(user)
		}
	}
	if !known && len(d.allow) > 0 {
		return "", matrix.Errorf(http.StatusBadRequest, matrix.CodeUnableToAuthoriseJoin, "This server cannot tell whether you may join this room.")
	}
	return "", ErrNoEntry()
}

// isUnable tells whether only another server may be able to let somebody in.
func isUnable(err error) bool {
	var e *matrix.Error
	return errors.As(err, &e) && (e.Code == matrix.CodeUnableToAuthoriseJoin || e.Code == matrix.CodeUnableToGrantJoin)
}

// mayKnock is nil for who may knock as far as the join rule goes.
//
// spec: client-server-api#knocking-on-rooms
func (d *door) mayKnock() error {
	switch {
	case d.membership == auth.Join || d.membership == auth.Invite:
		return matrix.Forbidden("You are in this room or invited already.")
	case d.membership == auth.Ban:
		return ErrNoEntry()
	case d.rule == auth.JoinRuleKnock && d.version.Knock || d.rule == auth.JoinRuleKnockRestricted && d.version.KnockRestricted:
		return nil
	}
	return ErrNoEntry()
}

// chooseHost picks the member who lets a user in: one of the user's own server, of the room's, or of any that is hosted here.
func (d *door) chooseHost(user matrix.UserID) (matrix.UserID, error) {
	for _, server := range []matrix.ServerName{user.Server(), d.prefer, d.tenant} {
		if u, ok := d.host[server]; ok {
			return u, nil
		}
	}
	best := matrix.UserID("")
	for _, u := range d.host {
		if best == "" || u < best {
			best = u
		}
	}
	if best == "" {
		return "", matrix.Errorf(http.StatusBadRequest, matrix.CodeUnableToGrantJoin, "Nobody here may let you into this room.")
	}
	return best, nil
}

// predecessorOf is the room that a room says to replace, empty for none.
func predecessorOf(create *event.Event) matrix.RoomID {
	raw, ok := event.ContentField(create, "predecessor")
	if !ok {
		return ""
	}
	id, err := matrix.ParseRoomID(stringIn(raw, "room_id"))
	if err != nil {
		return ""
	}
	return id
}
