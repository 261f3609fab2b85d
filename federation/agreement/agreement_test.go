package agreement_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"hansa/federation/agreement"
	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
	"hansa/storage/storagetest"
)

const (
	acme, globex, remote = matrix.ServerName("acme.example"), matrix.ServerName("globex.example"), matrix.ServerName("remote.example")
)

// desk is a service with a clock that can be moved.
type desk struct {
	*agreement.Service
	t      *testing.T
	engine *policy.Engine

	mu  sync.Mutex
	now time.Time // guarded by mu

	renewing sync.Mutex // held while the engine is told
}

func newDesk(t *testing.T, db *storage.DB) *desk {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "operator"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "operator", "domains.yaml"), []byte("domains: {deny: [evil.example]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := &desk{t: t, now: time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)}
	clock := func() time.Time { d.mu.Lock(); defer d.mu.Unlock(); return d.now }
	var err error
	d.engine, err = policy.New(policy.Options{Bundles: []string{dir}, Tenants: []string{string(acme), string(globex)}, Now: clock, SkipTests: true, Deadline: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	d.Service = agreement.New(agreement.Deps{DB: db, Policy: d.engine, Now: clock,
		IsLocal: func(n matrix.ServerName) bool { return n == acme || n == globex },
		Changed: func(ctx context.Context) error { return d.renew(ctx, db) }})
	return d
}

func (d *desk) renew(ctx context.Context, db *storage.DB) error {
	d.renewing.Lock()
	defer d.renewing.Unlock()
	var rows []storage.Agreement
	if err := db.Read(ctx, func(tx *storage.Tx) (err error) { rows, err = tx.LoadAgreements(""); return err }); err != nil {
		return err
	}
	var list []policy.Agreement
	for _, r := range rows {
		a := policy.Agreement{ID: r.ID, State: r.State, Scope: &policy.Scope{}, Owner: r.Owner, Partner: r.Partner}
		if err := json.Unmarshal(r.Scope, a.Scope); err != nil {
			return err
		}
		list = append(list, a)
	}
	return d.engine.SetAgreements(ctx, list)
}

func operator(tenant matrix.ServerName) agreement.Actor {
	return agreement.Actor{Party: &policy.Party{Kind: "operator", ID: "operator", Tenant: string(tenant), Local: true, Listed: true}}
}

// do is one step of a life: its verb and who speaks to whom.
func (d *desk) do(verb string, owner, partner matrix.ServerName, t agreement.Terms) (*agreement.Record, error) {
	ctx, by := d.t.Context(), operator(owner)
	switch verb {
	case "propose":
		return d.Propose(ctx, by, owner, partner, t)
	case "approve":
		return d.Approve(ctx, by, owner, partner, t)
	case "suspend":
		return d.Suspend(ctx, by, owner, partner)
	default:
		return d.End(ctx, by, owner, partner)
	}
}

func (d *desk) states() map[string]string {
	d.t.Helper()
	list, err := d.List(d.t.Context(), "")
	if err != nil {
		d.t.Fatal(err)
	}
	out := map[string]string{}
	for _, r := range list {
		out[string(r.Owner[0])+string(r.Partner[0])] = r.State
	}
	return out
}

// contact asks the policy whether two people of acme and globex may meet.
func (d *desk) contact() bool {
	a, b := d.engine.Resolve(policy.Facts{UserID: "@a:" + string(acme)}), d.engine.Resolve(policy.Facts{UserID: "@b:" + string(globex)})
	return d.engine.Contact(a, b)
}

func TestLife(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		d := newDesk(t, db)
		for i, s := range []struct {
			verb           string
			owner, partner matrix.ServerName
			refused        bool
			states         map[string]string
			contact        bool
		}{
			{"approve", globex, acme, true, map[string]string{}, false},
			{"suspend", acme, globex, true, map[string]string{}, false},
			{"end", acme, globex, true, map[string]string{}, false},
			{"propose", acme, globex, false, map[string]string{"ag": "proposed"}, false},
			{"propose", acme, globex, true, map[string]string{"ag": "proposed"}, false},
			{"approve", acme, globex, true, map[string]string{"ag": "proposed"}, false},
			{"suspend", acme, globex, true, map[string]string{"ag": "proposed"}, false},
			{"approve", globex, acme, false, map[string]string{"ag": "active", "ga": "active"}, true},
			{"approve", globex, acme, true, map[string]string{"ag": "active", "ga": "active"}, true},
			{"suspend", globex, acme, false, map[string]string{"ag": "active", "ga": "suspended"}, false},
			{"approve", acme, globex, true, map[string]string{"ag": "active", "ga": "suspended"}, false},
			{"approve", globex, acme, false, map[string]string{"ag": "active", "ga": "active"}, true},
			{"end", acme, globex, false, map[string]string{"ag": "ended", "ga": "active"}, false},
			{"end", acme, globex, true, map[string]string{"ag": "ended", "ga": "active"}, false},
			{"propose", acme, globex, false, map[string]string{"ag": "proposed", "ga": "active"}, false},
			{"approve", acme, globex, false, map[string]string{"ag": "active", "ga": "active"}, true},
		} {
			_, err := d.do(s.verb, s.owner, s.partner, agreement.Terms{})
			var e *matrix.Error
			if errors.As(err, &e); (err != nil) != s.refused || err != nil && (e == nil || e.Status != http.StatusConflict) {
				t.Fatalf("step %d, %s %s %s: %v, refused should be %t", i, s.verb, s.owner, s.partner, err, s.refused)
			}
			if diff := cmp.Diff(s.states, d.states()); diff != "" {
				t.Fatalf("step %d, %s %s %s (-want +got):\n%s", i, s.verb, s.owner, s.partner, diff)
			}
			if got := d.contact(); got != s.contact {
				t.Fatalf("step %d, %s %s %s: contact is %t", i, s.verb, s.owner, s.partner, got)
			}
		}
	})
}

// For a domain elsewhere the approval is one-sided.
func TestApprove_DomainElsewhere(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		d := newDesk(t, db)
		if r, err := d.do("propose", acme, remote, agreement.Terms{Features: []string{"messages"}}); err != nil || r.State != agreement.Proposed {
			t.Fatalf("propose: %+v %v", r, err)
		}
		r, err := d.do("approve", acme, remote, agreement.Terms{})
		if err != nil || r.State != agreement.Active || !slices.Equal(r.Features, []string{"messages"}) {
			t.Fatalf("approve: %+v %v", r, err)
		}
		if _, err := d.do("approve", globex, remote, agreement.Terms{}); err != nil {
			t.Errorf("approve without a proposal: %v", err)
		}
		if diff := cmp.Diff(map[string]string{"ar": "active", "gr": "active"}, d.states()); diff != "" {
			t.Error(diff)
		}
	})
}

// An approval without terms takes those of the proposal, seen from the other side.
func TestApprove_MirrorsTheProposal(t *testing.T) {
	t.Parallel()
	d := newDesk(t, storagetest.Open(t, storage.Options{URL: storagetest.URL(t, "sqlite")}))
	until := d.now.Add(time.Hour)
	_, err := d.do("propose", acme, globex, agreement.Terms{Direction: "outbound", Pools: []policy.PoolPair{{Ours: "research", Theirs: "*"}},
		Features: []string{"messages", "media"}, ValidUntil: until})
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.do("approve", globex, acme, agreement.Terms{Features: []string{"messages"}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Direction != "inbound" || !slices.Equal(r.Pools, []policy.PoolPair{{Ours: "*", Theirs: "research"}}) || !slices.Equal(r.Features, []string{"messages"}) ||
		!r.ValidUntil.Equal(until) {
		t.Errorf("the approval is %+v", r)
	}
	// Other terms for what is active already.
	if r, err = d.do("approve", acme, globex, agreement.Terms{Features: []string{"calls"}}); err != nil || !slices.Equal(r.Features, []string{"calls"}) || r.Direction != "outbound" {
		t.Errorf("new terms: %+v %v", r, err)
	}
	// What has run out is expired, and can be made anew.
	d.mu.Lock()
	d.now = until
	d.mu.Unlock()
	if diff := cmp.Diff(map[string]string{"ag": "expired", "ga": "expired"}, d.states()); diff != "" {
		t.Error(diff)
	}
	again, err := d.do("propose", acme, globex, agreement.Terms{})
	if err != nil || again.State != agreement.Proposed || again.ID == r.ID {
		t.Errorf("propose after the end: %+v %v", again, err)
	}
}

func TestChange_PolicyIsAsked(t *testing.T) {
	t.Parallel()
	d := newDesk(t, storagetest.Open(t, storage.Options{URL: storagetest.URL(t, "sqlite")}))
	admin := d.engine.Resolve(policy.Facts{UserID: "@admin:" + string(acme), Admin: true})
	user := d.engine.Resolve(policy.Facts{UserID: "@user:" + string(acme)})
	boss := d.engine.Resolve(policy.Facts{UserID: "@boss:" + string(globex), Admin: true})
	for name, c := range map[string]struct {
		by             *policy.Party
		owner, partner matrix.ServerName
		status         int
	}{
		"a user":                  {user, acme, globex, 403},
		"another tenant's admin":  {boss, acme, globex, 403},
		"nobody":                  {nil, acme, globex, 403},
		"a domain that is denied": {admin, acme, "evil.example", 403},
		"a tenant not hosted":     {admin, remote, acme, 404},
		"with itself":             {admin, acme, acme, 400},
	} {
		_, err := d.Propose(t.Context(), agreement.Actor{Party: c.by}, c.owner, c.partner, agreement.Terms{})
		var e *matrix.Error
		if !errors.As(err, &e) || e.Status != c.status {
			t.Errorf("%s: %v, want status %d", name, err, c.status)
		}
	}
	if len(d.states()) != 0 {
		t.Errorf("something was stored: %v", d.states())
	}
	if r, err := d.Propose(t.Context(), agreement.Actor{Party: admin}, acme, globex, agreement.Terms{}); err != nil || r.ChangedBy != "@admin:acme.example" {
		t.Errorf("an administrator: %+v %v", r, err)
	}
}

func TestTerms_Impossible(t *testing.T) {
	t.Parallel()
	d := newDesk(t, storagetest.Open(t, storage.Options{URL: storagetest.URL(t, "sqlite")}))
	for name, terms := range map[string]agreement.Terms{
		"direction": {Direction: "sideways"},
		"feature":   {Features: []string{"telepathy"}},
		"pair":      {Pools: []policy.PoolPair{{Ours: "research"}}},
		"time":      {ValidFrom: d.now, ValidUntil: d.now},
	} {
		var e *matrix.Error
		if _, err := d.do("propose", acme, globex, terms); !errors.As(err, &e) || e.Status != http.StatusBadRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAD385_ManyProposeAtOnce(t *testing.T) {
	t.Parallel()
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		d := newDesk(t, db)
		var wg sync.WaitGroup
		results := make(chan error, 100)
		for range cap(results) {
			wg.Go(func() {
				_, err := d.do("propose", acme, globex, agreement.Terms{})
				results <- err
			})
		}
		wg.Wait()
		close(results)
		made := 0
		for err := range results {
			var e *matrix.Error
			switch {
			case err == nil:
				made++
			case !errors.As(err, &e) || e.Status != http.StatusConflict:
				t.Error(fmt.Errorf("unexpected: %w", err))
			}
		}
		if made != 1 {
			t.Errorf("%d of %d proposals were made, want one", made, cap(results))
		}
	})
}
