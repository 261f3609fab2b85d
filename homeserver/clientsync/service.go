package clientsync

import (
	"context"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"hansa/homeserver/room"
	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/matrix/pushrule"
	"hansa/policy"
	"hansa/storage"
)

// Keys tells what a device has in store. It is declared here so that a test of this package needs no keys.
type Keys interface {
	// Counts returns how many one-time keys a device has left, by algorithm, and for which algorithms its fallback key is unused.
	Counts(ctx context.Context, user matrix.UserID, device matrix.DeviceID) (map[string]int, []string, error)
}

// Ephemeral is typing and presence. It is declared here because both can do without the other in tests.
type Ephemeral interface {
	// Version is the present moment; it grows with every change.
	Version() int64
	// Changed returns a channel that is closed at the next change.
	Changed() <-chan struct{}
	// Typing returns who is typing in a room.
	Typing(room matrix.RoomID) []matrix.UserID
	// TypingSince returns the rooms whose typing changed after a version.
	TypingSince(version int64) []matrix.RoomID
	// PresenceSince returns the users whose presence changed after a version; 0 means all who are not offline.
	PresenceSince(version int64) []matrix.UserID
	// MayRead tells whether somebody may see a user's presence.
	MayRead(ctx context.Context, viewer *policy.Party, user matrix.UserID) bool
	// StopTyping ends a user's typing in a room that the user has left.
	StopTyping(room matrix.RoomID, user matrix.UserID)
	// Presence returns the content of a user's m.presence event, nil for one who is unknown.
	Presence(user matrix.UserID) []byte
}

// Push compiles push rules. It is declared here because rules stand beside, not below.
type Push interface {
	// Evaluator returns a user's compiled rules.
	Evaluator(ctx context.Context, user matrix.UserID) (*pushrule.Evaluator, error)
	// Invalidate forgets a user's rules, after the log said that they changed.
	Invalidate(user matrix.UserID)
	// Content returns the content of a user's m.push_rules event.
	Content(ctx context.Context, user matrix.UserID) ([]byte, error)
}

// Deps is what a Service needs.
type Deps struct {
	DB        *storage.DB
	Stream    *stream.Stream
	Policy    *policy.Engine
	Rooms     *room.Service
	Parties   room.Parties
	Keys      Keys
	Ephemeral Ephemeral
	Push      Push
	// Forget drops what is remembered of a user's sessions and facts, before those who wait are woken by their change.
	Forget func(matrix.UserID)
	Log    *logrus.Entry
	Now    func() time.Time
	// MinInterval is the shortest time between two responses with news to one device; 0 means 20 ms. It makes a device that is
	// flooded get several events in one response.
	MinInterval time.Duration
}

// Service answers what users may see. Run must run while it is used.
type Service struct {
	Deps
	log  *logrus.Entry
	hub  *hub
	stop chan struct{} // closed when the server stops
	once sync.Once
}

// New returns a Service.
func New(d Deps) *Service {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.MinInterval == 0 {
		d.MinInterval = 20 * time.Millisecond
	}
	s := &Service{Deps: d, log: d.Log.WithField("pkg", "clientsync"), stop: make(chan struct{})}
	s.hub = newHub(s)
	return s
}

// Run brings new entries of the log to those who wait, until ctx ends.
func (s *Service) Run(ctx context.Context) error { return s.hub.run(ctx) }

// Stop lets all waiting syncs end with what there is, because the server stops.
func (s *Service) Stop() { s.once.Do(func() { close(s.stop) }) }
