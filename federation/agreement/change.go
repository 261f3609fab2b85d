package agreement

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"

	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

// errRaced says that somebody else changed a record in between.
var errRaced = errors.New("agreement: the record was changed in between")

// Propose makes the owner's half of a new agreement. It holds when the partner has approved it; for a domain that this deployment
// does not host, when the owner approves it.
func (s *Service) Propose(ctx context.Context, a Actor, owner, partner matrix.ServerName, t Terms) (*Record, error) {
	return s.change(ctx, a, "partner.propose", owner, partner, t, func(c *change) error {
		if c.own != nil && c.own.State != Ended && c.own.State != Expired {
			return badState("%s has an agreement with %s already; it is %s. End it first, or approve it with other terms.", owner, partner, c.own.State)
		}
		return c.put(nil, Proposed, t.over(everything()))
	})
}

// Approve makes the owner's half active: it accepts the partner's proposal (whose half becomes active with it), takes a suspension
// back, or gives an active record other terms. For a domain that this deployment does not host it needs no proposal.
func (s *Service) Approve(ctx context.Context, a Actor, owner, partner matrix.ServerName, t Terms) (*Record, error) {
	return s.change(ctx, a, "partner.approve", owner, partner, t, func(c *change) error {
		open := c.own != nil && c.own.State != Ended && c.own.State != Expired
		waiting := c.theirs != nil && c.theirs.State == Proposed
		if s.IsLocal(partner) && !waiting && (c.theirs == nil || c.theirs.State == Ended || c.theirs.State == Expired) {
			if open && c.own.State == Proposed {
				return badState("%s has not answered yet: the proposal of %s has to be approved by %s.", partner, owner, partner)
			}
			return badState("There is nothing that %s has proposed to %s.", partner, owner)
		}
		base := everything()
		switch {
		case open:
			base = c.own.terms()
		case c.theirs != nil:
			base = c.theirs.mirrored()
		}
		if open && c.own.State == Active && !t.given() && !waiting {
			return badState("The agreement of %s with %s is active already.", owner, partner)
		}
		if !open {
			c.own = nil // a new record, with an id of its own
		}
		if err := c.put(c.own, Active, t.over(base)); err != nil {
			return err
		}
		if waiting {
			return c.activateTheirs()
		}
		return nil
	})
}

// Suspend makes the owner's half hold no more until it is approved again.
func (s *Service) Suspend(ctx context.Context, a Actor, owner, partner matrix.ServerName) (*Record, error) {
	return s.change(ctx, a, "partner.suspend", owner, partner, Terms{}, func(c *change) error {
		if c.own == nil || c.own.State != Active {
			return badState("Only an active agreement can be suspended; that of %s with %s is %s.", owner, partner, c.state())
		}
		return c.put(c.own, Suspended, c.own.terms())
	})
}

// End ends the owner's half for good. A new agreement begins with a proposal.
func (s *Service) End(ctx context.Context, a Actor, owner, partner matrix.ServerName) (*Record, error) {
	return s.change(ctx, a, "partner.end", owner, partner, Terms{}, func(c *change) error {
		if c.own == nil || c.own.State == Ended {
			return badState("There is no agreement of %s with %s to end.", owner, partner)
		}
		return c.put(c.own, Ended, c.own.terms())
	})
}

func badState(format string, args ...any) *matrix.Error {
	return matrix.Errorf(http.StatusConflict, matrix.CodeBadState, format, args...)
}

// change is one change under way, inside a transaction.
type change struct {
	tx             *storage.Tx
	by             string
	owner, partner matrix.ServerName
	own, theirs    *Record
	ownRow, row    *storage.Agreement
}

func (c *change) state() string {
	if c.own == nil {
		return "not there"
	}
	return c.own.State
}

// put stores the owner's half. before is the record that it continues, nil for a new one.
func (c *change) put(before *Record, state string, t Terms) error {
	id := rand.Text()
	if before != nil {
		id = before.ID
	}
	return c.store(c.ownRow, id, c.owner, c.partner, state, t)
}

// activateTheirs makes the partner's proposal active.
func (c *change) activateTheirs() error {
	return c.store(c.row, c.theirs.ID, c.partner, c.owner, Active, c.theirs.terms())
}

func (c *change) store(before *storage.Agreement, id string, owner, partner matrix.ServerName, state string, t Terms) error {
	scope, err := json.Marshal(policy.Scope{Direction: t.Direction, Pools: t.Pools, Features: t.Features}, json.Deterministic(true))
	if err != nil {
		return err
	}
	ok, err := c.tx.ChangeAgreement(before, storage.Agreement{Owner: string(owner), Partner: string(partner), ID: id, State: state, Scope: scope,
		ValidFrom: millis(t.ValidFrom), ValidUntil: millis(t.ValidUntil), ChangedBy: c.by})
	if err == nil && !ok {
		return errRaced
	}
	return err
}

// change asks whether an actor may do something to an agreement, and does it in one transaction.
func (s *Service) change(ctx context.Context, a Actor, action string, owner, partner matrix.ServerName, t Terms, fn func(*change) error) (*Record, error) {
	if owner == partner {
		return nil, matrix.InvalidParam("A domain needs no agreement with itself.")
	}
	if !s.IsLocal(owner) {
		return nil, matrix.NotFound("This server does not host %s.", owner)
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	if err := s.ask(ctx, a, action, owner, partner); err != nil {
		return nil, err
	}
	var out *Record
	update := func(tx *storage.Tx) (err error) {
		c := &change{tx: tx, by: a.Party.ID, owner: owner, partner: partner}
		if c.own, c.ownRow, err = s.load(tx, owner, partner); err != nil {
			return err
		}
		if s.IsLocal(partner) {
			if c.theirs, c.row, err = s.load(tx, partner, owner); err != nil {
				return err
			}
		}
		if err = fn(c); err != nil {
			return err
		}
		out, _, err = s.load(tx, owner, partner)
		return err
	}
	err := s.DB.Update(ctx, update)
	for try := 0; errors.Is(err, errRaced) && try < 5; try++ {
		err = s.DB.Update(ctx, update)
	}
	if errors.Is(err, errRaced) {
		return nil, badState("Somebody else is changing this agreement at the same time; look at it and try again.")
	}
	if err == nil {
		err = s.Changed(ctx)
	}
	return out, err
}

func (s *Service) ask(ctx context.Context, a Actor, action string, owner, partner matrix.ServerName) error {
	if a.Party == nil {
		return matrix.Forbidden("This needs the rights of an administrator.")
	}
	d := s.Policy.Decide(ctx, &policy.Input{Point: policy.PartnerChange, Time: s.Now(), Tenant: policy.Tenant{Name: string(owner)}, Subject: a.Party,
		Server: &policy.Server{Name: string(partner), Local: s.IsLocal(partner)}, Request: a.Request,
		Admin: &policy.Admin{Action: action, Tenant: string(owner), Reason: a.Reason, Approver: a.Approver}})
	if e := d.Error(); e != nil {
		return e
	}
	return nil
}

// ParsePartner reads the name of a partner: a server name in lower case.
func ParsePartner(name string) (matrix.ServerName, error) {
	s, err := matrix.ParseServerName(strings.TrimSuffix(strings.ToLower(name), "."))
	if err != nil {
		return "", matrix.InvalidParam("%.100q is not the name of a server.", name)
	}
	return s, nil
}
