package policy

import (
	"context"
	"testing"
)

func TestDecide_PoolsKeepApart(t *testing.T) {
	t.Parallel()
	e := newEngine(t, acmeFiles())
	alice, bob := e.user("@alice:acme.example", "rnd"), e.user("@bob:acme.example", "rnd")
	carol := e.user("@carol:acme.example", "sales")
	if got := alice.Pools; len(got) != 1 || got[0] != "research" {
		t.Fatalf("Resolve: pools %v, want [research]", got)
	}
	if !e.Contact(alice, bob) || e.Contact(alice, carol) || e.Contact(carol, alice) {
		t.Errorf("Contact: members of one pool must meet, of two closed pools not")
	}
	ctx := context.Background()
	if d := e.Decide(ctx, invite(alice, bob, NewAudience(alice))); !d.Allow {
		t.Errorf("invite inside the pool: %v %+v %v", d, d.Reasons, d.Err)
	}
	d := e.Decide(ctx, invite(alice, carol, NewAudience(alice)))
	if d.Allow || d.Err != nil || d.ID == "" || len(d.Reasons) == 0 {
		t.Fatalf("invite across pools: %+v", d)
	}
	t.Logf("reasons: %+v", d.Reasons)
	if r := e.rec.last(t); r.ID != d.ID || r.Target != carol.ID || r.Allow {
		t.Errorf("record %+v does not tell about decision %s", r, d.ID)
	}
	if d := e.Decide(ctx, send(alice, NewAudience(alice, bob))); !d.Allow {
		t.Errorf("send: %v %+v %v", d, d.Reasons, d.Err)
	}
	if d := e.Decide(ctx, send(alice, NewAudience(alice, bob, carol))); d.Allow {
		t.Errorf("send into a room with a stranger to the pool: allowed")
	}
}
