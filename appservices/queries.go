package appservices

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"hansa/matrix"
	"hansa/policy"
)

const (
	// queryTimeout is how long a bridge has to say whether it knows a name.
	queryTimeout = 5 * time.Second
	// absentFor is how long a no is believed, slowFor for how long a bridge that did not answer is not asked again.
	absentFor = time.Minute
	slowFor   = 30 * time.Second
	// maxQueries is how many questions to one bridge may be under way, maxAbsent how many answers are remembered.
	maxQueries = 8
	maxAbsent  = 10_000
)

// queries asks bridges for names that are not known here. Those who ask for the same name share a question; a bridge that is slow is not
// asked for a while, so that nobody waits in line for it.
type queries struct {
	s *Service

	mu      sync.Mutex // guards all below
	absent  map[string]time.Time
	slow    map[string]time.Time
	flights map[string]*flight
	busy    map[string]int
}

// flight is a question that is under way.
type flight struct {
	done  chan struct{}
	found bool
}

func newQueries(s *Service) *queries {
	return &queries{s: s, absent: map[string]time.Time{}, slow: map[string]time.Time{}, flights: map[string]*flight{}, busy: map[string]int{}}
}

// forget forgets all answers.
func (q *queries) forget() {
	q.mu.Lock()
	defer q.mu.Unlock()
	clear(q.absent)
	clear(q.slow)
}

// AskAlias asks the bridge that an unknown alias belongs to whether there is such a room; a bridge that says yes has made it. Who may not know
// of the bridge does not reach it.
//
// spec: application-service-api#querying
func (s *Service) AskAlias(ctx context.Context, subject *policy.Party, alias matrix.RoomAlias) bool {
	for _, r := range s.set.Load().list {
		if r.base != nil && r.OwnsAlias(alias) && !s.isSuspended(r.ID) {
			return s.queries.ask(ctx, subject, r, "/rooms/", string(alias))
		}
	}
	return false
}

// AskUser asks the bridge that an unknown user belongs to whether there is such a user; a bridge that says yes has made the account.
//
// spec: application-service-api#querying
func (s *Service) AskUser(ctx context.Context, subject *policy.Party, user matrix.UserID) bool {
	for _, r := range s.set.Load().list {
		if r.base != nil && user != r.Bot && r.OwnsUser(user) && !s.isSuspended(r.ID) {
			return s.queries.ask(ctx, subject, r, "/users/", string(user))
		}
	}
	return false
}

// ask puts one question, or waits for the answer to the same one.
func (q *queries) ask(ctx context.Context, subject *policy.Party, r *Registration, path, name string) bool {
	bot, err := q.s.Accounts.Party(ctx, r.Bot)
	if err != nil || !q.s.Policy.Contact(subject, bot) {
		return false
	}
	if subject.Bridge != nil && subject.Bridge.ID == r.ID {
		return false // it knows
	}
	now := q.s.Now()
	q.mu.Lock()
	if q.absent[path+name].After(now) || q.slow[r.ID].After(now) {
		q.mu.Unlock()
		return false
	}
	f := q.flights[path+name]
	if f == nil {
		if q.busy[r.ID] >= maxQueries {
			q.mu.Unlock()
			return false
		}
		f = &flight{done: make(chan struct{})}
		q.flights[path+name] = f
		q.busy[r.ID]++
		q.mu.Unlock()
		q.fly(ctx, f, r, path, name)
		return f.found
	}
	q.mu.Unlock()
	select {
	case <-f.done:
		return f.found
	case <-ctx.Done():
		return false
	}
}

// fly puts the question. Whoever asked first waits for it on behalf of the others, and does not give up before them.
func (q *queries) fly(ctx context.Context, f *flight, r *Registration, path, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), queryTimeout)
	defer cancel()
	_, err := q.s.call(ctx, r, http.MethodGet, "/_matrix/app/v1"+path+url.PathEscape(name), nil, queryTimeout)
	f.found = err == nil
	now := q.s.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	defer close(f.done)
	delete(q.flights, path+name)
	if q.busy[r.ID]--; q.busy[r.ID] == 0 {
		delete(q.busy, r.ID)
	}
	if err == nil {
		return
	}
	if len(q.absent) >= maxAbsent {
		clear(q.absent)
	}
	q.absent[path+name] = now.Add(absentFor)
	var bad *badStatus
	var late net.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &late) && late.Timeout():
		q.slow[r.ID] = now.Add(slowFor)
		q.s.log.WithField("bridge", r.ID).Warn("a bridge does not say whether it knows a name; it is not asked for a while")
	case errors.As(err, &bad) && bad.status == http.StatusNotFound:
	default:
		q.s.log.WithField("bridge", r.ID).WithError(err).Warn("a bridge could not be asked for a name")
	}
}
