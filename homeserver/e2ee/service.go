package e2ee

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

// Parties tells who a user is to policy. It is declared here because accounts stand beside this package.
type Parties interface {
	// Party returns the facts about one user of any server.
	Party(ctx context.Context, user matrix.UserID) (*policy.Party, error)
	// Parties returns the facts about many users, each of whom has an entry in the answer.
	Parties(ctx context.Context, users []matrix.UserID) (map[matrix.UserID]*policy.Party, error)
}

// Policy is what this package asks of the policy engine. It is declared here so that tests can answer in its place.
type Policy interface {
	// Decide answers one question.
	Decide(ctx context.Context, in *policy.Input) policy.Decision
	// Consider is Decide for looking ahead: nothing is recorded.
	Consider(ctx context.Context, in *policy.Input) policy.Decision
	// Contact says whether a may know of b.
	Contact(a, b *policy.Party) bool
	// ContactDecision is Contact with what kept it from answering.
	ContactDecision(a, b *policy.Party) policy.Decision
	// Fresh says whether nothing changed since the decision.
	Fresh(d policy.Decision) bool
}

// Deps is what a Service needs.
type Deps struct {
	DB      *storage.DB
	Policy  Policy
	Parties Parties
	// Stream is the log in memory. Without it nothing is cached.
	Stream *stream.Stream
	// Remote asks other servers. Without it nobody there is reached.
	Remote Remote
	// Queue hands an EDU to the outbox; it counts when the transaction commits. Another one with the same key replaces it.
	Queue func(tx *storage.Tx, as, to matrix.ServerName, typ, key string, content []byte) error
	Log   *logrus.Entry
	Now   func() time.Time
}

// Service keeps keys, backups and to-device messages. Its methods may be called from any goroutine.
type Service struct {
	Deps
	log   *logrus.Entry
	watch *watch
	// stale tells Run that there are lists to be fetched.
	stale chan struct{}
	// checked is when Run looked last for what is not needed any more, in ms.
	checked atomic.Int64
}

// New returns a Service that is ready to use.
func New(d Deps) *Service {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Log == nil {
		d.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	s := &Service{Deps: d, log: d.Log.WithField("pkg", "e2ee"), stale: make(chan struct{}, 1)}
	s.watch = newWatch(s)
	return s
}

// Caller is the session that a request came with.
type Caller struct {
	UserID   matrix.UserID
	DeviceID matrix.DeviceID
	// Subject is the user with the device and network of the request; nil: what is known of the user.
	Subject *policy.Party
	Request *policy.Request
}

// errStale is returned inside a transaction when the policy changed since the decision: decide again.
var errStale = errors.New("e2ee: the policy has changed")

// maxTries is how often a request is decided again because the policy changes all the time.
const maxTries = 4

// verdict is what policy says about the users of a request.
type verdict struct {
	// allowed are local users, far those of other servers, both sorted; they need not exist.
	allowed, far []matrix.UserID
	parties      map[matrix.UserID]*policy.Party
	// refused are the other servers of which no user is allowed.
	refused map[matrix.ServerName]struct{}
	// decision is the first one, to ask Fresh about; nil when nothing was asked.
	decision *policy.Decision
}

// judge asks policy about each of the users that a request names. Denied users are left out. An engine that cannot answer is an
// error, so that nothing is lost: the client tries again.
func (s *Service) judge(ctx context.Context, by Caller, point policy.Point, ev *policy.Event, users []matrix.UserID) (*verdict, error) {
	v := &verdict{refused: map[matrix.ServerName]struct{}{}}
	if len(users) == 0 {
		return v, nil
	}
	subject, err := s.subject(ctx, by)
	if err != nil {
		return nil, err
	}
	if v.parties, err = s.Parties.Parties(ctx, users); err != nil {
		return nil, err
	}
	in := policy.Input{Point: point, Tenant: policy.Tenant{Name: string(by.UserID.Server())}, Subject: subject, Event: ev, Request: by.Request}
	return v, s.ask(ctx, v, in, users)
}

// ask fills a verdict about users whose parties are known.
func (s *Service) ask(ctx context.Context, v *verdict, in policy.Input, users []matrix.UserID) error {
	reached := map[matrix.ServerName]bool{}
	for _, u := range slices.Sorted(slices.Values(users)) {
		p := v.parties[u]
		if p == nil {
			continue
		}
		in.Schema, in.Time, in.Target = policy.InputSchema, s.Now(), p
		if !in.Subject.Local { // somebody elsewhere addresses the target's tenant
			in.Tenant.Name = p.Tenant
		}
		d := s.Policy.Decide(ctx, &in)
		if d.Err != nil {
			return d.Error()
		}
		if v.decision == nil {
			v.decision = &d
		}
		switch {
		case !d.Allow && !p.Local:
			v.refused[u.Server()] = struct{}{}
		case !d.Allow:
		case p.Local:
			v.allowed = append(v.allowed, u)
		default:
			v.far = append(v.far, u)
			reached[u.Server()] = true
		}
	}
	maps.DeleteFunc(v.refused, func(name matrix.ServerName, _ struct{}) bool { return reached[name] })
	return nil
}

func (s *Service) subject(ctx context.Context, by Caller) (*policy.Party, error) {
	if by.Subject != nil {
		return by.Subject, nil
	}
	return s.Parties.Party(ctx, by.UserID)
}

// decided runs a judged transaction, and decides again when the policy changed before it committed.
func (s *Service) decided(ctx context.Context, judge func() (*verdict, error), commit func(tx *storage.Tx, v *verdict) error) (*verdict, error) {
	for range maxTries {
		v, err := judge()
		if err != nil {
			return nil, err
		}
		err = s.DB.UpdateShared(ctx, func(tx *storage.Tx) error {
			if err := commit(tx, v); err != nil {
				return err
			}
			if v.decision != nil && !s.Policy.Fresh(*v.decision) {
				return errStale
			}
			return nil
		})
		if !errors.Is(err, errStale) {
			return v, err
		}
	}
	return nil, matrix.Errorf(http.StatusServiceUnavailable, matrix.CodeUnknown, "The policy is being changed. Please try again.").With("retry_after_ms", 1000)
}

// ServerFailures is the answer about servers that could not be asked: no detail, whatever the reason.
type ServerFailures map[matrix.ServerName]map[string]string

func (v *verdict) failures() ServerFailures {
	out := make(ServerFailures, len(v.refused))
	for name := range v.refused {
		out[name] = map[string]string{}
	}
	return out
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// userIDs checks the keys of a request's map of users.
func userIDs[V any](m map[matrix.UserID]V) ([]matrix.UserID, error) {
	if len(m) > maxUsers {
		return nil, tooLarge("A request may name at most %d users.", maxUsers)
	}
	for id := range m {
		if _, err := matrix.ParseUserID(string(id)); err != nil {
			return nil, matrix.InvalidParam("%.100q is not a user ID.", string(id))
		}
	}
	return sortedKeys(m), nil
}

// device refuses callers without a device, such as application services that act for a user.
func (c Caller) device() error {
	if c.DeviceID == "" {
		return matrix.InvalidParam("This needs a session with a device.")
	}
	return nil
}

// gone is the answer to a device that was deleted while its request was under way.
func gone() error {
	return matrix.Errorf(http.StatusUnauthorized, matrix.CodeUnknownToken, "This device has been removed.")
}
