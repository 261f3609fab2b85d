package room

import (
	"context"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/policy"
)

// question is what a draft asks of policy, taken from the room while it was locked.
type question struct {
	input *policy.Input
	epoch int64
}

// point names the decision point of an event. It depends on the event alone: whichever way an invitation comes, it is one.
func point(typ string, stateKey *string, sender matrix.UserID, membership, current string) policy.Point {
	switch {
	case typ == typeMember && stateKey != nil:
		switch own := string(sender) == *stateKey; membership {
		case auth.Invite:
			return policy.RoomInvite
		case auth.Join:
			return policy.RoomJoin
		case auth.Knock:
			return policy.RoomKnock
		case auth.Leave:
			if own {
				return policy.RoomLeave
			}
			return policy.RoomModerate
		default:
			return policy.RoomModerate
		}
	case typ == typeRedaction && stateKey == nil:
		return policy.EventRedact
	case stateKey != nil:
		return policy.RoomState
	}
	return policy.EventSend
}

// ask makes the policy input of a draft. The caller holds l.mu.
func (s *Service) ask(ctx context.Context, l *live, d *Draft) (*question, error) {
	if err := s.gather(ctx, l); err != nil {
		return nil, err
	}
	subject := d.Subject
	if subject == nil {
		p, err := s.Parties.Party(ctx, d.Sender)
		if err != nil {
			return nil, err
		}
		subject = p
	}
	membership := ""
	if d.Type == typeMember && d.StateKey != nil {
		membership, _ = stringMember(d.Content, "membership")
	}
	facts := *l.policyRoom(s)
	facts.Membership = l.members[d.Sender].membership
	in := &policy.Input{Point: point(d.Type, d.StateKey, d.Sender, membership, facts.Membership), Time: s.Now(),
		Tenant: policy.Tenant{Name: string(d.Sender.Server())}, Subject: subject, Room: &facts, Request: d.Request,
		Audience: l.crowd.audience, Event: s.eventFacts(d, membership)}
	if membership != "" && *d.StateKey != string(d.Sender) {
		target, err := matrix.ParseUserID(*d.StateKey)
		if err != nil {
			return nil, matrix.InvalidParam("The state key of a membership must be a user ID.")
		}
		if in.Target, err = s.Parties.Party(ctx, target); err != nil {
			return nil, err
		}
	}
	return &question{in, l.epoch}, nil
}

// judge asks policy: the rules of whoever acts and is acted upon, and for events in rooms with other tenants of this
// deployment, each of those tenants, just as a remote server would judge what it receives.
func (s *Service) judge(ctx context.Context, q *question) policy.Decision {
	d := s.Policy.Decide(ctx, q.input)
	if !d.Allow || len(q.input.Room.Tenants) < 2 {
		return d
	}
	for _, tenant := range q.input.Room.Tenants {
		if tenant == q.input.Subject.Tenant {
			continue
		}
		in := *q.input
		in.Tenant = policy.Tenant{Name: tenant}
		switch q.input.Point {
		case policy.EventSend, policy.EventRedact, policy.RoomState:
			in.Point, in.Server = policy.EventReceive, &policy.Server{Name: q.input.Subject.Tenant, Local: true}
		case policy.RoomInvite, policy.RoomJoin, policy.RoomKnock: // everybody in the room must agree to the newcomer
		default:
			return d
		}
		other := s.Policy.Decide(ctx, &in)
		if !other.Allow {
			return other
		}
		d.Obligations.HistoryVisibility = stricter(d.Obligations.HistoryVisibility, other.Obligations.HistoryVisibility)
	}
	return d
}

// policyRoom returns the facts about the room that do not depend on who asks. The caller holds l.mu and has gathered the crowd.
func (l *live) policyRoom(s *Service) *policy.Room {
	if l.facts != nil {
		return l.facts
	}
	create := l.rules.Create()
	f := &policy.Room{ID: string(l.id), Version: l.room.Version.ID, Tenant: string(create.Sender.Server()), Creator: string(create.Sender),
		JoinRule: l.rules.JoinRule(), HistoryVisibility: "shared", Federate: l.rules.Federates(), Members: l.joined, Direct: l.direct,
		Encrypted: l.event(typeEncryption) != nil, Labels: []string{}, Pools: sortedKeys(l.crowd.pools), Servers: sortedKeys(l.crowd.servers)}
	f.Type, _ = event.ContentString(create, "type")
	if e := l.event(typeHistory); e != nil {
		if v, ok := event.ContentString(e, "history_visibility"); ok {
			f.HistoryVisibility = v
		}
	}
	f.Tenants = []string{}
	for _, name := range f.Servers {
		if s.IsLocal(matrix.ServerName(name)) {
			f.Tenants = append(f.Tenants, name)
		}
	}
	l.facts = f
	return f
}

// eventFacts takes an event apart for policy.
func (s *Service) eventFacts(d *Draft, membership string) *policy.Event {
	f := &policy.Event{Type: d.Type, StateKey: d.StateKey, Membership: membership, Size: len(d.Content), Encrypted: d.Type == "m.room.encrypted", Domains: domains(d, membership)}
	var c struct {
		MsgType           string         `json:"msgtype"`
		JoinRule          string         `json:"join_rule"`
		HistoryVisibility string         `json:"history_visibility"`
		GuestAccess       string         `json:"guest_access"`
		Algorithm         string         `json:"algorithm"`
		RelatesTo         jsontext.Value `json:"m.relates_to"`
		Info              jsontext.Value `json:"info"`
	}
	lenient(d.Content, &c)
	f.MsgType = c.MsgType
	var rel struct {
		RelType string `json:"rel_type"`
	}
	lenient(c.RelatesTo, &rel)
	f.RelatesTo = rel.RelType
	var info struct {
		MimeType string `json:"mimetype"`
	}
	lenient(c.Info, &info)
	f.MimeType = info.MimeType
	if d.StateKey != nil {
		switch d.Type {
		case "m.room.join_rules":
			f.Value = &c.JoinRule
		case typeHistory:
			f.Value = &c.HistoryVisibility
		case "m.room.guest_access":
			f.Value = &c.GuestAccess
		case typeEncryption:
			f.Value = &c.Algorithm
		}
	}
	if d.target != nil {
		f.Own = d.target.Sender == d.Sender
		age := max(0, (s.nowMS()-d.target.OriginServerTS)/1000)
		f.AgeSeconds = &age
	}
	if s.Policy.Reads(point(d.Type, d.StateKey, d.Sender, membership, ""), "event", "content") {
		_ = json.Unmarshal(d.Content, &f.Content) // it was parsed before; what is no object has no content
	}
	return f
}

// lenient reads known members of an object; one of the wrong type is as good as absent.
func lenient(object jsontext.Value, into any) {
	if len(object) > 0 {
		_ = json.Unmarshal(object, into) // a member of the wrong type keeps its zero value
	}
}

// stringMember reads one string member of an object.
func stringMember(object jsontext.Value, key string) (string, bool) {
	return event.ContentString(&event.Event{Content: object}, key)
}

// denied turns an answer of the authorisation rules into the error for a client.
func denied(err error) error {
	if d, ok := err.(*auth.Denied); ok {
		return matrix.Errorf(http.StatusForbidden, matrix.CodeForbidden, "%s", d.Reason)
	}
	return err
}
