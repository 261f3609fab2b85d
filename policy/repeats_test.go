package policy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// knock asks for a server at the door of acme.
func knock(e *fixture, server string) Decision {
	return e.Decide(context.Background(), &Input{Point: FederationInbound, Tenant: Tenant{Name: acme}, Subject: ServerParty(server, false),
		Server: &Server{Name: server}})
}

func TestRepeats_TenThousandKnocksAreTwoRecords(t *testing.T) {
	t.Parallel()
	e := newEngine(t, acmeFiles())
	first := knock(e, "evil.example")
	if first.Allow || len(e.rec.records) != 1 || e.rec.last(t).ID != first.ID || e.rec.last(t).Subject != "evil.example" {
		t.Fatalf("first refusal: %+v with records %+v", first, e.rec.records)
	}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range 1000 {
				if d := knock(e, "evil.example"); d.Allow || d.ID != first.ID || d.Err != nil {
					t.Errorf("repetition: %+v, want the refusal %s", d, first.ID)
					return
				}
			}
		})
	}
	wg.Wait()
	e.flushRepeats(context.Background(), false)
	if n := len(e.rec.records); n != 1 {
		t.Fatalf("%d records within a minute, want one", n)
	}
	e.clock.add(repeatWindow)
	e.flushRepeats(context.Background(), false)
	if n := len(e.rec.records); n != 2 {
		t.Fatalf("%d records after a minute, want two", n)
	}
	if r := e.rec.last(t); r.Repeated != 10000 || r.Subject != "evil.example" || r.ID == first.ID || r.Allow {
		t.Errorf("summary %+v", r)
	}
	e.flushRepeats(context.Background(), true)
	if n := len(e.rec.records); n != 2 {
		t.Errorf("%d records, want no more", n)
	}
	if d := knock(e, "evil.example"); d.ID == first.ID || len(e.rec.records) != 3 {
		t.Errorf("a new minute begins with a new record: %+v", d)
	}
}

func TestRepeats_AfterAMinuteWithoutFlush(t *testing.T) {
	t.Parallel()
	e := newEngine(t, acmeFiles())
	knock(e, "evil.example")
	knock(e, "evil.example")
	e.clock.add(2 * repeatWindow)
	knock(e, "evil.example")
	if n := len(e.rec.records); n != 3 || e.rec.last(t).Repeated != 1 {
		t.Errorf("%d records, the last %+v; want the first, the new one, and how often", n, e.rec.last(t))
	}
}

func TestRepeats_ForgedNamesAreBounded(t *testing.T) {
	t.Parallel()
	e := newEngine(t, acmeFiles())
	const many = repeatMost + 500
	for i := range many {
		if d := knock(e, fmt.Sprintf("s%d.example", i)); d.Allow || d.ID == "" {
			t.Fatalf("%+v", d)
		}
	}
	if n := len(e.rec.records); n != repeatMost+1 || e.rec.last(t).Subject != "*" {
		t.Errorf("%d records, the last about %q; want %d and *", n, e.rec.last(t).Subject, repeatMost+1)
	}
	e.flushRepeats(context.Background(), true)
	if r := e.rec.last(t); r.Repeated != many-repeatMost-1 {
		t.Errorf("%d counted together, want %d", r.Repeated, many-repeatMost-1)
	}
}

func TestRepeats_RecorderFails(t *testing.T) {
	t.Parallel()
	e := newEngine(t, acmeFiles())
	e.rec.err = errors.New("disk full")
	if d := knock(e, "evil.example"); d.Allow || !errors.Is(d.Err, ErrRecord) {
		t.Errorf("refusal that cannot be recorded: %+v", d)
	}
	knock(e, "evil.example")
	e.flushRepeats(context.Background(), true)
	e.rec.err = nil
	e.flushRepeats(context.Background(), true)
	if n := len(e.rec.records); n != 2 || e.rec.records[0].Repeated != 0 || e.rec.last(t).Repeated != 1 {
		t.Errorf("records %+v, want the first and how often", e.rec.records)
	}
}

// A change of the agreement is in the very next answer, and another refusal is another record.
func TestDoor_ChangeHoldsAtOnce(t *testing.T) {
	t.Parallel()
	e := newEngine(t, acmeFiles())
	ctx := context.Background()
	set := func(state string) {
		must(t, e.SetAgreements(ctx, []Agreement{agree(acme, "far.example", func(a *Agreement) { a.State, a.Mutual = state, false })}))
	}
	set("active")
	if d := knock(e, "far.example"); !d.Allow {
		t.Fatalf("partner: %+v", d)
	}
	set("suspended")
	if d := knock(e, "far.example"); d.Allow || e.rec.last(t).ID != d.ID {
		t.Errorf("suspended: %+v", d)
	}
	set("active")
	if d := knock(e, "far.example"); !d.Allow {
		t.Errorf("approved again: %+v", d)
	}
}

// A default partner passes where no agreement says otherwise; a star stands for everybody, and never for a tenant of this deployment.
func TestDoor_DefaultPartners(t *testing.T) {
	t.Parallel()
	open := newEngine(t, acmeFiles(), func(o *Options) { o.OpenPartners = []string{"*"} })
	must(t, open.SetAgreements(context.Background(), []Agreement{agree(acme, "bad.example", func(a *Agreement) { a.State, a.Mutual = "suspended", false })}))
	some := newEngine(t, acmeFiles(), func(o *Options) { o.OpenPartners = []string{"Far.Example."} })
	for _, c := range []struct {
		e      *fixture
		server string
		want   bool
	}{{open, "far.example", true}, {open, "far.example:8449", true}, {open, "bad.example", false}, {some, "far.example", true}, {some, "FAR.example", true},
		{some, "far.example:8449", false}, {some, "far.example.evil.net", false}, {some, "other.example", false}} {
		if d := knock(c.e, c.server); d.Allow != c.want {
			t.Errorf("%s: %v, want %v", c.server, d, c.want)
		}
	}
	a, g := open.user("@a:acme.example"), open.user("@g:globex.example")
	if open.Contact(a, g) != true { // both sides have the star
		t.Error("tenants that are both open to everybody may meet")
	}
}

// The time of an agreement is looked at in every answer.
func TestDoor_Validity(t *testing.T) {
	t.Parallel()
	e := newEngine(t, acmeFiles())
	now := e.clock.now()
	must(t, e.SetAgreements(context.Background(), []Agreement{agree(acme, "far.example", func(a *Agreement) {
		a.Mutual, a.ValidFrom, a.ValidUntil = false, now.Add(time.Hour), now.Add(2*time.Hour)
	})}))
	for _, want := range []bool{false, true, false} {
		if d := knock(e, "far.example"); d.Allow != want {
			t.Errorf("at %s: %v, want %v", e.clock.now(), d, want)
		}
		e.clock.add(time.Hour)
	}
}

func TestConsider_RecordsNothing(t *testing.T) {
	t.Parallel()
	e := newEngine(t, acmeFiles())
	if d := e.Consider(context.Background(), &Input{Point: FederationInbound, Tenant: Tenant{Name: acme}, Subject: ServerParty("evil.example", false),
		Server: &Server{Name: "evil.example"}}); d.Allow || len(e.rec.records) != 0 {
		t.Errorf("%+v with %d records", d, len(e.rec.records))
	}
}
