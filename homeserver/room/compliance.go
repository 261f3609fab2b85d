package room

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/policy"
)

// Rooms with several servers: every tenant of this deployment that is in a room must approve every server in it. It is asked before
// somebody comes in (MayEnter, MayInvite, MayAdopt), and of each event of another server by everybody whose domain is in it
// (judgeForeign), whoever delivers it. What is refused then is withheld, since nobody can take it out of the graph again; it counts in
// the room's state all the same, so that whoever came in that way is one of the room's crowd, and our people cannot send to them.

// judgeForeign asks policy about an event of another server. The error wraps ErrUndecided. The caller holds l.mu.
func (s *Service) judgeForeign(ctx context.Context, l *live, e *event.Event) (policy.Decision, error) {
	return s.considerForeign(ctx, l, e, s.Policy.Decide)
}

func (s *Service) considerForeign(ctx context.Context, l *live, e *event.Event, decide func(context.Context, *policy.Input) policy.Decision) (policy.Decision, error) {
	d := &Draft{RoomID: l.id, Sender: e.Sender, Type: e.Type, StateKey: e.StateKey, Content: e.Content}
	q, err := s.ask(ctx, l, d)
	var refused *matrix.Error
	if errors.As(err, &refused) && refused.Status < http.StatusInternalServerError { // it names somebody who cannot be
		return policy.Decision{Point: policy.EventReceive, Reasons: []policy.Reason{{Code: "malformed", Message: refused.Message}}}, nil
	}
	if err != nil {
		return policy.Decision{}, fmt.Errorf("%w: %w", ErrUndecided, err)
	}
	questions, err := s.foreignQuestions(ctx, q.input, e)
	if err != nil {
		return policy.Decision{}, fmt.Errorf("%w: %w", ErrUndecided, err)
	}
	tenants := q.input.Room.Tenants
	if len(tenants) == 0 {
		tenants = []string{string(l.room.Tenant)} // nobody of ours is in it at present; who comes back will read it
	}
	out := policy.Decision{Allow: true}
	for _, tenant := range tenants {
		if tenant == string(e.Sender.Server()) {
			continue // has decided when the event was sent
		}
		for i := range questions {
			in := questions[i]
			in.Tenant = policy.Tenant{Name: tenant}
			if out = decide(ctx, &in); out.Err != nil {
				return out, fmt.Errorf("%w: %w", ErrUndecided, out.Err)
			}
			if !out.Allow {
				return out, nil
			}
		}
	}
	return out, nil
}

// foreignQuestions are the questions that an event of another server raises for each tenant in the room. in is about the event as if it were
// a draft of ours.
func (s *Service) foreignQuestions(ctx context.Context, in *policy.Input, e *event.Event) ([]policy.Input, error) {
	if in.Point == policy.RoomLeave {
		return []policy.Input{*in}, nil // people must be able to go, or the room could never become right again
	}
	receive := func(subject *policy.Party, server matrix.ServerName) policy.Input {
		q := *in
		q.Point, q.Subject, q.Target = policy.EventReceive, subject, nil
		q.Server = &policy.Server{Name: string(server), Local: s.IsLocal(server)}
		return q
	}
	out := []policy.Input{receive(in.Subject, e.Sender.Server())}
	if in.Target != nil && entering(in.Event.Membership) {
		if in.Target.Local {
			out = append(out, *in) // room.invite
		} else {
			out = append(out, receive(in.Target, matrix.ServerName(in.Target.Tenant)))
		}
	}
	for _, name := range in.Event.Domains {
		server := matrix.ServerName(name)
		if server == e.Sender.Server() || s.IsLocal(server) || in.Target != nil && name == in.Target.Tenant {
			continue
		}
		out = append(out, receive(in.Subject, server))
	}
	return out, nil
}

// entering tells whether a membership brings somebody nearer to a room.
func entering(membership string) bool {
	return membership == auth.Join || membership == auth.Invite || membership == auth.Knock
}

// domains are the servers of the users who are named in an event and whom it lets in: its sender, whom a membership is about, and who
// vouched for a join.
func domains(d *Draft, membership string) []string {
	out := []string{string(d.Sender.Server())}
	if d.Type != typeMember || d.StateKey == nil || !entering(membership) {
		return out
	}
	add := func(user string) {
		if id, err := matrix.ParseUserID(user); err == nil && !slices.Contains(out, string(id.Server())) {
			out = append(out, string(id.Server()))
		}
	}
	add(*d.StateKey)
	if by, ok := stringMember(d.Content, "join_authorised_via_users_server"); ok {
		add(by)
	}
	return out
}

// MayEnter is nil where policy lets a user of any server into a room that is known here: by membership join, invite or knock. It asks
// every tenant that is in the room. Where policy wants the room to show less of its past then, that is done. Errors are *matrix.Error: 403 with the decision, or 503.
func (s *Service) MayEnter(ctx context.Context, id matrix.RoomID, user matrix.UserID, membership string) error {
	subject, err := s.Parties.Party(ctx, user)
	if err != nil {
		return unavailable(err)
	}
	p := policy.RoomJoin
	if membership == auth.Knock {
		p = policy.RoomKnock
	}
	return s.mayEnter(ctx, id, &policy.Input{Point: p, Subject: subject}, user)
}

// MayInvite is nil where policy lets one user invite another into a room that is known here; at least one of them may be of another server.
// Errors are those of MayEnter.
func (s *Service) MayInvite(ctx context.Context, id matrix.RoomID, sender, target matrix.UserID) error {
	parties, err := s.Parties.Parties(ctx, []matrix.UserID{sender, target})
	if err != nil {
		return unavailable(err)
	}
	return s.mayEnter(ctx, id, &policy.Input{Point: policy.RoomInvite, Subject: parties[sender], Target: parties[target]}, sender)
}

func (s *Service) mayEnter(ctx context.Context, id matrix.RoomID, in *policy.Input, subject matrix.UserID) error {
	l, err := s.live(ctx, id)
	if err != nil {
		return unavailable(err)
	}
	l.mu.Lock()
	if err := s.gather(ctx, l); err != nil {
		l.mu.Unlock()
		return unavailable(err)
	}
	facts := *l.policyRoom(s)
	facts.Membership = l.members[subject].membership
	in.Room, in.Audience = &facts, l.crowd.audience
	home := l.room.Tenant
	l.mu.Unlock()
	in.Time = s.Now()
	most, err := s.askTenants(ctx, in, home)
	if err == nil && opens(in) && ShowsMore(facts.HistoryVisibility, most) {
		err = s.hidePast(ctx, id, most, subject)
	}
	return err
}

// askTenants asks every tenant in the room of a question; where there is none, the given one. It returns the most that the room may show of its
// past then, empty for everything.
func (s *Service) askTenants(ctx context.Context, in *policy.Input, home matrix.ServerName) (most string, err error) {
	tenants := in.Room.Tenants
	if len(tenants) == 0 {
		tenants = []string{string(home)}
	}
	for _, tenant := range tenants {
		q := *in
		q.Tenant = policy.Tenant{Name: tenant}
		d := s.Policy.Decide(ctx, &q)
		if e := d.Error(); e != nil {
			return "", e
		}
		most = stricter(most, d.Obligations.HistoryVisibility)
	}
	return most, nil
}

// MayAdopt is nil where policy lets a user of ours into a room that another server has told the state of: every server and everybody in
// it is judged before any of it is stored. Errors are those of MayEnter.
func (s *Service) MayAdopt(ctx context.Context, user matrix.UserID, v *matrix.RoomVersion, id matrix.RoomID, state []*event.Event) error {
	facts := &policy.Room{ID: string(id), Version: v.ID, HistoryVisibility: "shared", Federate: true, Labels: []string{}, Pools: []string{}, Tenants: []string{}}
	var people []matrix.UserID
	for _, e := range state {
		if e.StateKey == nil {
			continue
		}
		switch e.Type {
		case auth.TypeCreate:
			facts.Tenant, facts.Creator = string(e.Sender.Server()), string(e.Sender)
			facts.Type, _ = event.ContentString(e, "type")
			var c struct {
				Federate *bool `json:"m.federate"`
			}
			lenient(e.Content, &c)
			facts.Federate = c.Federate == nil || *c.Federate
		case "m.room.join_rules":
			facts.JoinRule, _ = event.ContentString(e, "join_rule")
		case typeHistory:
			if h, ok := event.ContentString(e, "history_visibility"); ok {
				facts.HistoryVisibility = h
			}
		case typeEncryption:
			facts.Encrypted = true
		case typeMember:
			m := event.Membership(e)
			if who, err := matrix.ParseUserID(*e.StateKey); err == nil && isPresent(m) && who != user {
				people = append(people, who)
			}
			if *e.StateKey == string(user) {
				facts.Membership = m
			}
			if m == auth.Join {
				facts.Members++
			}
		}
	}
	parties, err := s.Parties.Parties(ctx, append(people, user))
	if err != nil {
		return unavailable(err)
	}
	c := newCrowd()
	for _, u := range people {
		c.add(u, parties[u])
	}
	facts.Servers, facts.Pools = sortedKeys(c.servers), sortedKeys(c.pools)
	for _, name := range facts.Servers {
		if s.IsLocal(matrix.ServerName(name)) && name != string(user.Server()) {
			facts.Tenants = append(facts.Tenants, name)
		}
	}
	facts.Tenants = append(facts.Tenants, string(user.Server()))
	_, err = s.askTenants(ctx, &policy.Input{Point: policy.RoomJoin, Time: s.Now(), Subject: parties[user], Room: facts, Audience: c.audience}, user.Server())
	return err
}
