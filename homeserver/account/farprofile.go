package account

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/policy"
)

// Remote asks other servers for profiles. It is declared here because federation stands above this package. A call is made in the name
// of a tenant, and refused without anything being resolved or dialled where policy does not let that tenant reach the server.
type Remote interface {
	// Profile returns the profile of a user, or one field of it.
	Profile(ctx context.Context, as, to matrix.ServerName, user matrix.UserID, field string) (map[string]jsontext.Value, error)
}

const (
	// profileTimeout is how long somebody waits for another server.
	profileTimeout = 10 * time.Second
	// farFresh is how long a profile of another server is used without asking again, farAbsent how long it is known that there is none.
	farFresh, farAbsent = 5 * time.Minute, 30 * time.Second
	// maxFar is how many profiles of other servers are remembered.
	maxFar = 5000
)

// farProfiles remembers profiles of users of other servers for a short while, each for the tenant that asked. Who may see one is asked
// before it is looked at.
type farProfiles struct {
	now     func() time.Time
	flights stream.Flight[Profile]

	mu       sync.Mutex
	profiles map[farKey]farProfile // guarded by mu
	forgot   uint64                // how often all was forgotten; guarded by mu
}

type farKey struct {
	as   matrix.ServerName
	user matrix.UserID
}

type farProfile struct {
	profile Profile // nil: there is none
	until   time.Time
}

func newFarProfiles(now func() time.Time) *farProfiles {
	return &farProfiles{now: now, profiles: map[farKey]farProfile{}}
}

// find returns what is known of a profile: nil where there is none.
func (f *farProfiles) find(k farKey) (Profile, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.profiles[k]
	return p.profile, ok && f.now().Before(p.until)
}

// asking is to be called before a server is asked, and handed to put.
func (f *farProfiles) asking() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.forgot
}

// put remembers a profile, unless all was forgotten while its server was asked.
func (f *farProfiles) put(k farKey, p Profile, asked uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.forgot != asked {
		return
	}
	if len(f.profiles) >= maxFar {
		for old, p := range f.profiles { // what is over first, else any
			if delete(f.profiles, old); len(f.profiles) < maxFar*9/10 && f.now().Before(p.until) {
				break
			}
		}
	}
	life := farFresh
	if p == nil {
		life = farAbsent
	}
	f.profiles[k] = farProfile{p, f.now().Add(life)}
}

// ForgetFar forgets the profiles of users of other servers.
func (s *Service) ForgetFar() {
	s.far.mu.Lock()
	defer s.far.mu.Unlock()
	clear(s.far.profiles)
	s.far.forgot++
}

// fetchProfile returns the profile of a user of another server to somebody whom policy lets see it. The answer unknown stands for
// everything that a server may say but a profile.
//
// spec: server-server-api#get_matrixfederationv1queryprofile
func (s *Service) fetchProfile(ctx context.Context, as matrix.ServerName, user matrix.UserID, field string, unknown *matrix.Error) (Profile, error) {
	if s.Remote == nil {
		return nil, unknown
	}
	k := farKey{as, user}
	found, ok := s.far.find(k)
	if !ok {
		var err error
		if found, err = s.askProfile(ctx, k); err != nil {
			s.log.WithField("destination", user.Server()).WithError(err).Debug("a profile was not fetched")
			return nil, unknown
		}
	}
	switch v := found[field]; {
	case found == nil:
		return nil, unknown
	case field == "":
		return found, nil
	case v == nil:
		return nil, matrix.NotFound("This profile has no such field.")
	default:
		return Profile{field: v}, nil
	}
}

// askProfile asks the server of a user, once for all who wait for it.
func (s *Service) askProfile(ctx context.Context, k farKey) (Profile, error) {
	return s.far.flights.Do(ctx, string(k.as)+" "+string(k.user), profileTimeout, func(ctx context.Context) (Profile, error) {
		if p, ok := s.far.find(k); ok { // another has asked since this one looked
			return p, nil
		}
		asked := s.far.asking()
		raw, err := s.Remote.Profile(ctx, k.as, k.user.Server(), k.user, "")
		var status interface{ HTTPStatus() int }
		if errors.As(err, &status) && status.HTTPStatus() == http.StatusNotFound {
			s.far.put(k, nil, asked)
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		p := readFar(raw)
		s.far.put(k, p, asked)
		return p, nil
	})
}

// readFar takes what is well formed out of a profile of another server. Values are passed on as they are, and never used as addresses.
func readFar(raw map[string]jsontext.Value) Profile {
	p, size := Profile{}, 2
	for field, v := range raw {
		value, remove, err := checkValue(field, v)
		if checkField(field) != nil || v.Kind() == 'n' || err != nil || remove {
			continue
		}
		if size += len(field) + len(value) + 4; size > maxProfile {
			return Profile{}
		}
		p[field] = value
	}
	return p
}

// ServeProfile gives another server the profile, or one field of it, of a user of the tenant that it asks. The same answer says that there
// is no such user and that the server may not know.
//
// spec: server-server-api#get_matrixfederationv1queryprofile
func (s *Service) ServeProfile(ctx context.Context, as, origin matrix.ServerName, user matrix.UserID, field string) (map[string]jsontext.Value, error) {
	unknown := matrix.NotFound("There is no such user, or you may not know of them.")
	if user.Server() != as || !s.IsLocal(as) {
		return nil, unknown
	}
	party, err := s.Party(ctx, user)
	if err != nil {
		return nil, err
	}
	d := s.Policy.Decide(ctx, &policy.Input{Schema: policy.InputSchema, Point: policy.ProfileRead, Time: s.Now(), Tenant: policy.Tenant{Name: string(as)},
		Subject: policy.ServerParty(string(origin), false), Target: party, Server: &policy.Server{Name: string(origin)}, Request: &policy.Request{Via: "federation"}})
	switch {
	case d.Err != nil:
		return nil, d.Error()
	case !d.Allow:
		return nil, unknown
	}
	p, err := s.LoadProfile(ctx, user)
	var absent *matrix.Error
	if errors.As(err, &absent) && absent.Code == matrix.CodeNotFound {
		return nil, unknown
	}
	if err != nil || field == "" {
		return p, err
	}
	out := map[string]jsontext.Value{}
	if v, ok := p[field]; ok {
		out[field] = v
	}
	return out, nil
}
