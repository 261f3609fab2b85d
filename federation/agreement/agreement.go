// Package agreement keeps what the tenants of this deployment have agreed with their partners: other tenants, and domains
// elsewhere.
//
// Each tenant holds one record about a partner (Record): its half of an agreement, with a state, what it opens (Terms) and from
// when to when. A record is proposed, active, suspended, ended or expired. Between two tenants of one deployment both halves have
// to be active, and approving a proposal makes both so; a domain elsewhere keeps no records here, and the approval is one-sided.
//
// The rules of Rego decide what a record means (rego/hansa/agreements.rego); this package only changes records, and asks the
// decision point partner.change before it does. Records that files declare (section `partners` of a tenant's policy) are not
// seen here. The HTTP of it is in homeserver/adminapi.
package agreement

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

// The states of a record. Expired is never stored: an active record whose time is over is expired.
const (
	Proposed  = "proposed"
	Active    = "active"
	Suspended = "suspended"
	Ended     = "ended"
	Expired   = "expired"
)

// Record is what one tenant (the owner) holds about a partner.
type Record struct {
	ID         string            `json:"id"`
	Owner      matrix.ServerName `json:"owner"`
	Partner    matrix.ServerName `json:"partner"`
	State      string            `json:"state"`
	Direction  string            `json:"direction"`
	Pools      []policy.PoolPair `json:"pools"`
	Features   []string          `json:"features"`
	ValidFrom  time.Time         `json:"valid_from,omitzero"`
	ValidUntil time.Time         `json:"valid_until,omitzero"`
	ChangedBy  string            `json:"changed_by"`
	ChangedAt  time.Time         `json:"changed_at"`
}

// Terms are what a tenant opens to a partner. Members that are empty are taken from the partner's proposal, seen from the other
// side, or where there is none stand for everything.
type Terms struct {
	// Direction says who may begin: both, outbound (the owner) or inbound (the partner).
	Direction string `json:"direction,omitzero"`
	// Pools are the pairs of pools that may meet; a star stands for everybody who is in no closed or linked pool.
	Pools []policy.PoolPair `json:"pools,omitempty"`
	// Features are what may pass: messages, media, presence, profiles, directory, calls; or a star.
	Features []string `json:"features,omitempty"`
	// ValidFrom and ValidUntil bound the time; zero for no bound.
	ValidFrom time.Time `json:"valid_from,omitzero"`
	// ValidUntil is the moment from which the record is expired.
	ValidUntil time.Time `json:"valid_until,omitzero"`
}

// Actor is who changes a record: a user with admin rights, or the operator.
type Actor struct {
	Party            *policy.Party
	Request          *policy.Request
	Reason, Approver string
}

// Deps is what a Service needs.
type Deps struct {
	DB     *storage.DB
	Policy *policy.Engine
	// IsLocal tells whether a domain is a tenant of this deployment.
	IsLocal func(matrix.ServerName) bool
	// Changed makes the policy know the records of the database; a change has been made when it returns.
	Changed func(context.Context) error
	Now     func() time.Time
}

// Service changes and lists records. Its methods may be called from any goroutine.
type Service struct{ Deps }

// New returns a Service that is ready to use.
func New(d Deps) *Service {
	if d.Now == nil {
		d.Now = time.Now
	}
	return &Service{d}
}

// List returns the records that a tenant holds, and those that others hold about it; all records when tenant is empty. Who may see
// them is for the caller to ask.
func (s *Service) List(ctx context.Context, tenant matrix.ServerName) ([]Record, error) {
	var rows []storage.Agreement
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) { rows, err = tx.LoadAgreements(""); return err })
	if err != nil {
		return nil, err
	}
	out := []Record{}
	for i := range rows {
		r, err := s.record(&rows[i])
		if err != nil {
			return nil, err
		}
		if tenant == "" || r.Owner == tenant || r.Partner == tenant && r.State != Ended {
			out = append(out, *r)
		}
	}
	return out, nil
}

// record reads a stored record, with the state that it has now.
func (s *Service) record(a *storage.Agreement) (*Record, error) {
	var scope policy.Scope
	if err := json.Unmarshal(a.Scope, &scope); err != nil {
		return nil, err
	}
	r := &Record{ID: a.ID, Owner: matrix.ServerName(a.Owner), Partner: matrix.ServerName(a.Partner), State: a.State, Direction: scope.Direction,
		Pools: scope.Pools, Features: scope.Features, ValidFrom: moment(a.ValidFrom), ValidUntil: moment(a.ValidUntil),
		ChangedBy: a.ChangedBy, ChangedAt: moment(a.ChangedTS)}
	if r.State == Active && !r.ValidUntil.IsZero() && !s.Now().Before(r.ValidUntil) {
		r.State = Expired
	}
	return r, nil
}

func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// load returns a record and how it is stored, or nil for both.
func (s *Service) load(tx *storage.Tx, owner, partner matrix.ServerName) (*Record, *storage.Agreement, error) {
	a, err := tx.LoadAgreement(string(owner), string(partner))
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	r, err := s.record(a)
	return r, a, err
}

// check refuses terms that no record can have.
func (t Terms) check() error {
	if t.Direction != "" && !slices.Contains([]string{"both", "outbound", "inbound"}, t.Direction) {
		return matrix.InvalidParam("The direction of an agreement is both, outbound or inbound.")
	}
	if len(t.Pools) > 1000 || slices.ContainsFunc(t.Pools, func(p policy.PoolPair) bool {
		return p.Ours == "" || p.Theirs == "" || len(p.Ours) > 255 || len(p.Theirs) > 255
	}) {
		return matrix.InvalidParam("Each pair of pools names ours and theirs, or * for everybody; there are at most 1000.")
	}
	known := []string{"messages", "media", "presence", "profiles", "directory", "calls", "*"}
	for _, f := range t.Features {
		if !slices.Contains(known, f) {
			return matrix.InvalidParam("There is no feature %.50q; the features are messages, media, presence, profiles, directory, calls and *.", f)
		}
	}
	if !t.ValidFrom.IsZero() && !t.ValidUntil.IsZero() && !t.ValidFrom.Before(t.ValidUntil) {
		return matrix.InvalidParam("An agreement must begin before it ends.")
	}
	return nil
}

// given tells whether the terms say anything.
func (t Terms) given() bool {
	return t.Direction != "" || len(t.Pools) > 0 || len(t.Features) > 0 || !t.ValidFrom.IsZero() || !t.ValidUntil.IsZero()
}

// over fills what t leaves open from the terms of a record.
func (t Terms) over(base Terms) Terms {
	if t.Direction == "" {
		t.Direction = base.Direction
	}
	if len(t.Pools) == 0 {
		t.Pools = base.Pools
	}
	if len(t.Features) == 0 {
		t.Features = base.Features
	}
	if t.ValidFrom.IsZero() {
		t.ValidFrom = base.ValidFrom
	}
	if t.ValidUntil.IsZero() {
		t.ValidUntil = base.ValidUntil
	}
	return t
}

func everything() Terms {
	return Terms{Direction: "both", Pools: policy.AllPools(), Features: policy.AllFeatures()}
}

func (r *Record) terms() Terms {
	return Terms{Direction: r.Direction, Pools: r.Pools, Features: r.Features, ValidFrom: r.ValidFrom, ValidUntil: r.ValidUntil}
}

// mirrored are the terms of a partner's record, seen from this side.
func (r *Record) mirrored() Terms {
	t := r.terms()
	switch t.Direction {
	case "outbound":
		t.Direction = "inbound"
	case "inbound":
		t.Direction = "outbound"
	}
	t.Pools = make([]policy.PoolPair, len(r.Pools))
	for i, p := range r.Pools {
		t.Pools[i] = policy.PoolPair{Ours: p.Theirs, Theirs: p.Ours}
	}
	return t
}
