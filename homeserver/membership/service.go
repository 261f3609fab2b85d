package membership

import (
	"context"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/sirupsen/logrus"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/policy"
	"hansa/storage"
)

// Deps is what a Service needs.
type Deps struct {
	DB      *storage.DB
	Policy  *policy.Engine
	Rooms   *room.Service
	Parties room.Parties
	Log     *logrus.Entry
	Now     func() time.Time
	// Limits turns the limits on inviting on.
	Limits bool
	// ProfilePace is how many member events a second a node writes for changed profiles; 0 means 50.
	ProfilePace int
	// Remote asks other servers; nil where there are none to ask.
	Remote Remote
	// Gate judges servers of which it is heard that they are in a room; nil: none is refused before policy is asked about people.
	Gate Gate
	// PeerError takes apart what another server answered to Remote; ok is false for an error that is no answer.
	PeerError func(error) (status int, code, message string, ok bool)
}

// Service makes rooms and changes memberships. Its methods may be called from any goroutine.
type Service struct {
	Deps
	log    *logrus.Entry
	limits *limits
	pace   *pace
	turns  turns
}

// New returns a Service that is ready to use.
func New(d Deps) *Service {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.ProfilePace == 0 {
		d.ProfilePace = 50
	}
	return &Service{Deps: d, log: d.Log.WithField("pkg", "membership"), limits: newLimits(d.Limits, d.Now), pace: newPace(d.ProfilePace, d.Now),
		turns: turns{held: map[matrix.RoomID]chan struct{}{}}}
}

// Caller is who acts.
type Caller struct {
	UserID matrix.UserID
	// Subject is the user with the device and network of the request.
	Subject *policy.Party
	Request *policy.Request
	// Residents are the servers that a directory has named as being in the room that the caller wants to reach.
	Residents []matrix.ServerName
}

// ErrNoEntry is the answer to who cannot come into a room, whether it exists or not.
func ErrNoEntry() *matrix.Error { return matrix.Forbidden("You cannot join this room.") }

// RequireJoined is nil for who is in the room, and else room.ErrUnknownRoom, whether there is such a room or not.
func (s *Service) RequireJoined(ctx context.Context, id matrix.RoomID, user matrix.UserID) error {
	membership, err := s.membershipOf(ctx, id, user)
	if err == nil && membership != auth.Join {
		err = room.ErrUnknownRoom
	}
	return err
}

func (s *Service) membershipOf(ctx context.Context, id matrix.RoomID, user matrix.UserID) (membership string, err error) {
	err = s.Rooms.Look(ctx, id, func(v room.View) { membership = v.Membership(user) })
	return membership, err
}

// draft begins an event of the caller.
func (c *Caller) draft(id matrix.RoomID, typ, key string, content jsontext.Value) room.Draft {
	return room.Draft{RoomID: id, Sender: c.UserID, Type: typ, StateKey: &key, Content: content, Subject: c.Subject, Request: c.Request}
}

// object encodes content that may hold what a client sent; it is checked on its way into the room.
func object(content map[string]any) (jsontext.Value, error) {
	b, err := json.Marshal(content, json.Deterministic(true), jsontext.AllowInvalidUTF8(false))
	if err != nil {
		return nil, matrix.BadJSON("The content is not JSON: %v.", err)
	}
	return b, nil
}

// profile returns what member events say of a local user: displayname and avatar_url, as far as they are set.
//
// spec: client-server-api#events-on-change-of-profile-information
func (s *Service) profile(ctx context.Context, user matrix.UserID) (map[string]any, error) {
	all, err := s.profiles(ctx, []matrix.UserID{user})
	return all[user], err
}

func (s *Service) profiles(ctx context.Context, users []matrix.UserID) (map[matrix.UserID]map[string]any, error) {
	out := make(map[matrix.UserID]map[string]any, len(users))
	for _, u := range users {
		out[u] = map[string]any{}
	}
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		list, err := tx.LoadProfiles(users, "displayname", "avatar_url")
		for _, f := range list {
			var text string
			if json.Unmarshal(f.Value, &text) == nil && text != "" {
				out[f.UserID][f.Field] = text
			}
		}
		return err
	})
	return out, err
}

// decide asks a decision point of the caller's tenant about a room.
func (s *Service) decide(ctx context.Context, c Caller, in policy.Input) (policy.Decision, error) {
	in.Time, in.Tenant, in.Subject, in.Request = s.Now(), policy.Tenant{Name: string(c.UserID.Server())}, c.Subject, c.Request
	d := s.Policy.Decide(ctx, &in)
	if e := d.Error(); e != nil {
		return d, e
	}
	return d, nil
}
