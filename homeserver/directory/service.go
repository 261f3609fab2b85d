package directory

import (
	"context"
	"errors"
	"time"

	"github.com/sirupsen/logrus"

	"hansa/homeserver/room"
	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/policy"
	"hansa/storage"
)

// Deps is what a Service needs.
type Deps struct {
	DB      *storage.DB
	Stream  *stream.Stream
	Policy  *policy.Engine
	Rooms   *room.Service
	Parties room.Parties
	// PartyOf makes a party of an account, without any memory of how it was before.
	PartyOf func(*storage.User) *policy.Party
	Tenants []matrix.ServerName
	// Remote asks other servers, and Reach says whether a tenant may have to do with one. Without them nobody there is asked.
	Remote Remote
	Reach  func(ctx context.Context, as, to matrix.ServerName) error
	// Open tells whether somebody who is in a room, or invited, may read it. Without it they may.
	Open func(ctx context.Context, viewer *policy.Party, id matrix.RoomID) (bool, error)
	// Ask asks an application service for an alias of a tenant that is not known, and tells whether it has made the room. May be nil.
	Ask func(ctx context.Context, subject *policy.Party, alias matrix.RoomAlias) bool
	Log *logrus.Entry
	Now func() time.Time
}

// Service finds rooms and users. Its methods may be called from any goroutine.
type Service struct {
	Deps
	log   *logrus.Entry
	users *userIndex
	far   *farRooms
	walks *walks
	turns chan struct{} // a place for each hierarchy that is gone through
}

// New returns a Service. Run and Follower must run while users are searched for.
func New(d Deps) *Service {
	if d.Now == nil {
		d.Now = time.Now
	}
	return &Service{Deps: d, log: d.Log.WithField("pkg", "directory"), users: newUserIndex(),
		far: newFarRooms(), walks: newWalks(), turns: make(chan struct{}, maxWalks)}
}

// Caller is who asks: a user of this deployment, or another server.
type Caller struct {
	UserID matrix.UserID
	// Server is the other server; empty for a user.
	Server matrix.ServerName
	// Subject is the user with the device and network of the request.
	Subject *policy.Party
	Request *policy.Request
}

// decide asks a decision point. tenant is whose directory it is about.
func (s *Service) decide(ctx context.Context, c Caller, tenant matrix.ServerName, in policy.Input) policy.Decision {
	in.Time, in.Tenant, in.Subject, in.Request = s.Now(), policy.Tenant{Name: string(tenant)}, c.Subject, c.Request
	switch {
	case in.Server != nil:
	case c.Server != "":
		in.Server = &policy.Server{Name: string(c.Server)}
	case tenant != c.UserID.Server():
		in.Server = &policy.Server{Name: string(tenant), Local: true}
	}
	return s.Policy.Decide(ctx, &in)
}

// mayFind tells whether the caller may learn that a room exists: members and those who are invited may, the others where the
// point directory.rooms allows it.
func (s *Service) mayFind(ctx context.Context, c Caller, tenant matrix.ServerName, id matrix.RoomID) (bool, error) {
	facts, audience, err := s.Rooms.PolicyFacts(ctx, id, c.UserID)
	if errors.Is(err, room.ErrUnknownRoom) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if facts.Membership == auth.Join || facts.Membership == auth.Invite {
		return true, nil
	}
	return s.decide(ctx, c, tenant, policy.Input{Point: policy.DirectoryRooms, Room: facts, Audience: audience}).Allow, nil
}

// inside is nil for members of a room, and tells what they may do; for the others it is room.ErrUnknownRoom.
func (s *Service) inside(ctx context.Context, id matrix.RoomID, user matrix.UserID) (mayName bool, err error) {
	in := false
	err = s.Rooms.Look(ctx, id, func(v room.View) {
		in = v.Membership(user) == auth.Join
		mayName = v.Rules().CanSend(user, typeCanonical, true)
	})
	if err == nil && !in {
		err = room.ErrUnknownRoom
	}
	return mayName, err
}
