package door_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"hansa/federation/door"
	"hansa/matrix"
	"hansa/policy"
)

// log counts records.
type log struct {
	mu      sync.Mutex
	records []policy.Record
	err     error
}

func (l *log) RecordDecisions(_ context.Context, records []policy.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, records...)
	return l.err
}

func newDoor(t testing.TB) (*door.Door, *policy.Engine, *log) {
	t.Helper()
	l := &log{}
	e, err := policy.New(policy.Options{Tenants: []string{"acme.example", "globex.example"}, Recorder: l, Deadline: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return door.New(door.Deps{Policy: e, IsLocal: func(s matrix.ServerName) bool { return s == "acme.example" || s == "globex.example" }}), e, l
}

func agreement(state string) policy.Agreement {
	return policy.Agreement{ID: "a", Owner: "acme.example", Partner: "far.example", State: state,
		Scope: &policy.Scope{Direction: "both", Pools: policy.AllPools(), Features: policy.AllFeatures()}}
}

func status(err error) int {
	var e *matrix.Error
	if err == nil {
		return 200
	}
	if !errors.As(err, &e) {
		return -1
	}
	return e.Status
}

func TestDoor_States(t *testing.T) {
	t.Parallel()
	d, e, _ := newDoor(t)
	ctx := context.Background()
	for _, c := range []struct {
		state                 string
		pass, leave, stranger int
	}{{"", 403, 403, 403}, {"proposed", 403, 403, 403}, {"active", 200, 200, 403}, {"suspended", 403, 200, 403}, {"ended", 403, 200, 403}, {"expired", 403, 200, 403}} {
		var list []policy.Agreement
		if c.state != "" {
			list = append(list, agreement(c.state))
		}
		if err := e.SetAgreements(ctx, list); err != nil {
			t.Fatal(err)
		}
		for name, got := range map[string][2]int{
			"inbound":           {status(d.Inbound(ctx, "acme.example", "far.example")), c.pass},
			"outbound":          {status(d.Outbound(ctx, "acme.example", "far.example")), c.pass},
			"inbound leave":     {status(d.InboundLeave(ctx, "acme.example", "far.example")), c.leave},
			"outbound leave":    {status(d.OutboundLeave(ctx, "acme.example", "far.example")), c.leave},
			"stranger":          {status(d.Inbound(ctx, "acme.example", "evil.example")), c.stranger},
			"stranger's leave":  {status(d.InboundLeave(ctx, "acme.example", "evil.example")), 403},
			"to the stranger":   {status(d.OutboundLeave(ctx, "acme.example", "evil.example")), 403},
			"the other tenant":  {status(d.Inbound(ctx, "globex.example", "far.example")), 403},
			"between tenants":   {status(d.Inbound(ctx, "globex.example", "acme.example")), 403},
			"no tenant of ours": {status(d.Inbound(ctx, "nobody.example", "far.example")), 403},
		} {
			if got[0] != got[1] {
				t.Errorf("%s with an agreement that is %q: %d, want %d", name, c.state, got[0], got[1])
			}
		}
	}
}

// A refusal names its decision, is recorded once, and tells nothing of what was asked for.
func TestDoor_OneRecord(t *testing.T) {
	t.Parallel()
	d, _, l := newDoor(t)
	ctx := context.Background()
	var first any
	for range 100 {
		var e *matrix.Error
		if !errors.As(d.Inbound(ctx, "acme.example", "evil.example"), &e) || e.Code != matrix.CodeForbidden {
			t.Fatalf("%v, want M_FORBIDDEN", e)
		}
		if first == nil {
			first = e.Extra["org.hansa.decision_id"]
		}
		if e.Extra["org.hansa.decision_id"] != first || first == nil {
			t.Fatalf("decision %v, want %v", e.Extra["org.hansa.decision_id"], first)
		}
	}
	if len(l.records) != 1 || l.records[0].ID != first || l.records[0].Tenant != "acme.example" || l.records[0].Point != policy.FederationInbound {
		t.Errorf("records %+v", l.records)
	}
}

// Where the decision cannot be recorded the peer is to try again.
func TestDoor_Undecided(t *testing.T) {
	t.Parallel()
	d, _, l := newDoor(t)
	l.err = errors.New("no disk")
	if got := status(d.Inbound(context.Background(), "acme.example", "evil.example")); got != 503 {
		t.Errorf("%d, want 503", got)
	}
}

func BenchmarkInbound(b *testing.B) {
	d, e, _ := newDoor(b)
	ctx := context.Background()
	if err := e.SetAgreements(ctx, []policy.Agreement{agreement("active")}); err != nil {
		b.Fatal(err)
	}
	for name, server := range map[string]matrix.ServerName{"partner": "far.example", "stranger": "evil.example"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = d.Inbound(ctx, "acme.example", server)
			}
		})
	}
}
