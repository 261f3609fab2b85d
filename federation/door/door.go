// Package door answers, before anything else happens, whether a tenant of this deployment and another server have to do
// with each other at all.
//
// Inbound is asked for each request of another server, with the name that the request claims, before the keys of that name
// are looked up: a server that is no partner costs neither a look-up nor a connection. Outbound is asked before a name is
// resolved, anything is dialled or queued. Both ask the decision points federation.inbound and federation.outbound and
// nothing else; what a partner may do once inside is judged where it does it.
//
// An answer is remembered by the policy engine and costs about a microsecond; a change of an agreement or of rules is in
// the very next answer. A server that is refused over and over has its first refusal in the decision log, and one more
// record for each minute in which it went on that says how often (see policy.Engine).
//
// A server whose agreement is suspended or over may still take its people out of rooms, and our people may leave its
// rooms: InboundLeave and OutboundLeave.
package door

import (
	"context"
	"time"

	"hansa/matrix"
	"hansa/policy"
)

// Deps is what a Door needs.
type Deps struct {
	Policy *policy.Engine
	// IsLocal tells whether a server name is a tenant of this deployment.
	IsLocal func(matrix.ServerName) bool
	Now     func() time.Time
}

// Door decides about servers. Its methods may be called from any goroutine.
type Door struct{ Deps }

// New returns a Door that is ready to use.
func New(d Deps) *Door {
	if d.Now == nil {
		d.Now = time.Now
	}
	return &Door{d}
}

// Inbound is nil where the server origin may make requests of the tenant as; else a *matrix.Error: 403 with the id of the
// decision, or 503 where policy cannot decide at present.
func (d *Door) Inbound(ctx context.Context, as, origin matrix.ServerName) error {
	return d.ask(ctx, policy.FederationInbound, as, origin, nil)
}

// Outbound is nil where the tenant as may make requests of the server to; errors are those of Inbound.
func (d *Door) Outbound(ctx context.Context, as, to matrix.ServerName) error {
	return d.ask(ctx, policy.FederationOutbound, as, to, nil)
}

// InboundLeave is Inbound for requests that only take people of origin out of rooms: make_leave and send_leave.
func (d *Door) InboundLeave(ctx context.Context, as, origin matrix.ServerName) error {
	return d.ask(ctx, policy.FederationInbound, as, origin, parting())
}

// OutboundLeave is Outbound for requests that only take people of the tenant as out of rooms, and for telling the server that
// its own people were removed.
func (d *Door) OutboundLeave(ctx context.Context, as, to matrix.ServerName) error {
	return d.ask(ctx, policy.FederationOutbound, as, to, parting())
}

// parting is what policy is told of an event that takes somebody out of a room.
func parting() *policy.Event {
	key := ""
	return &policy.Event{Type: "m.room.member", StateKey: &key, Membership: "leave", Domains: []string{}}
}

func (d *Door) ask(ctx context.Context, p policy.Point, as, other matrix.ServerName, e *policy.Event) error {
	local := d.IsLocal(other)
	subject := policy.ServerParty(string(other), local)
	if p == policy.FederationOutbound {
		subject = policy.ServerParty(string(as), true)
	}
	decision := d.Policy.Decide(ctx, &policy.Input{Point: p, Time: d.Now(), Tenant: policy.Tenant{Name: string(as)}, Subject: subject,
		Server: &policy.Server{Name: string(other), Local: local}, Event: e})
	if err := decision.Error(); err != nil {
		return err
	}
	return nil
}
