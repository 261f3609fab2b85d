package ephemeral

import (
	"context"
	"sync"
	"time"

	"hansa/federation"
	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/policy"
)

// Deps is what a Service needs.
type Deps struct {
	Policy  *policy.Engine
	Rooms   *room.Service
	Parties room.Parties
	// NoPresence turns presence off: nobody's is kept or shown.
	NoPresence bool
	// Send tells other servers of typing (with a room) and presence (without); it never blocks and may lose it. nil: nobody is told.
	Send func(as matrix.ServerName, room matrix.RoomID, user matrix.UserID, edu federation.EDU)
	// Relay reaches the other nodes, Node is the name of this one among them; nil where there are none.
	Relay Relay
	Node  string
	Now   func() time.Time
}

// Caller is who asks for something.
type Caller struct {
	User   matrix.UserID
	Device matrix.DeviceID
	// Party is the caller to policy, Request the HTTP request behind the call.
	Party   *policy.Party
	Request *policy.Request
}

// Service holds typing and presence, those of other nodes as far as they are told of here. Run must run while it is used. Its methods may be called from any goroutine.
type Service struct {
	Deps
	kick chan struct{} // tells Run that something is due earlier than it thought

	mu       sync.Mutex // guards all below
	version  int64
	changed  chan struct{} // closed and replaced at a change that readers wait for
	typing   typing
	presence presence
	verdicts verdicts
}

// New returns a Service in which nobody is typing or present.
func New(d Deps) *Service {
	if d.Now == nil {
		d.Now = time.Now
	}
	s := &Service{Deps: d, kick: make(chan struct{}, 1), version: d.Now().UnixMilli(), changed: make(chan struct{}),
		typing: newTyping(), presence: newPresence()}
	s.hear()
	return s
}

// Run lets typing and presence end in time, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-s.kick:
		}
		timer.Reset(s.sweep())
	}
}

// sweep ends what is over, and returns how long nothing more is due.
func (s *Service) sweep() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.Now()
	next := min(s.sweepTyping(now), s.sweepPresence(now))
	return max(next, time.Millisecond)
}

// soon makes Run look again what is due when. It never blocks.
func (s *Service) soon() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Version is the moment of the newest change. It grows with every change, also over a restart.
func (s *Service) Version() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version
}

// Changed returns a channel that is closed at the next change.
func (s *Service) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// advance takes a version for a change. The caller holds s.mu.
func (s *Service) advance(now time.Time) int64 {
	s.version = max(s.version+1, now.UnixMilli())
	return s.version
}

// wake tells those who wait for a change. The caller holds s.mu.
func (s *Service) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// maxVerdicts bounds the answers of policy that are remembered.
const maxVerdicts = 10_000

// verdicts remembers answers to questions that are asked over and over, so that a denial is recorded once and not with every
// look. Answers are good for one set of rules and one minute.
type verdicts struct {
	generation uint64
	minute     int64
	answers    map[verdictKey]bool
}

type verdictKey struct {
	point           policy.Point
	subject, target matrix.UserID
}

// may asks policy, or remembers what it answered.
func (s *Service) may(ctx context.Context, in *policy.Input) bool {
	k := verdictKey{point: in.Point, subject: matrix.UserID(in.Subject.ID)}
	if in.Target != nil {
		k.target = matrix.UserID(in.Target.ID)
	}
	generation, minute := s.Policy.Generation(), s.Now().Unix()/60
	s.mu.Lock()
	v := &s.verdicts
	if v.answers == nil || v.generation != generation || v.minute != minute || len(v.answers) >= maxVerdicts {
		*v = verdicts{generation, minute, map[verdictKey]bool{}}
	}
	allow, known := v.answers[k]
	s.mu.Unlock()
	if known {
		return allow
	}
	d := s.Policy.Decide(ctx, in)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.verdicts.generation == d.Generation && d.Err == nil {
		s.verdicts.answers[k] = d.Allow
	}
	return d.Allow
}

func (s *Service) input(p policy.Point, by Caller) *policy.Input {
	return &policy.Input{Point: p, Time: s.Now(), Tenant: policy.Tenant{Name: string(by.User.Server())}, Subject: by.Party, Request: by.Request}
}
