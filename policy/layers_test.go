package policy

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const sayNo = `deny contains {"code": "no", "message": "No."} if input.event.msgtype == "m.image"`

// TestLayers_EveryoneCanDeny: the operator, the tenant and a pool can each only narrow, and all reasons are collected.
func TestLayers_EveryoneCanDeny(t *testing.T) {
	t.Parallel()
	files := acmeFiles()
	files["operator/images.rego"] = "package operator.event.send\n\n" + strings.Replace(sayNo, `"no"`, `"operator_no"`, 1) + "\n"
	files["acme.example/images.rego"] = tenantRule(EventSend, strings.Replace(sayNo, `"no"`, `"tenant_no"`, 1))
	files["acme.example/research.rego"] = "package tenants[\"acme.example\"].pools.research.event.send\n\n" + strings.Replace(sayNo, `"no"`, `"pool_no"`, 1) + "\n"
	e := newEngine(t, files)
	ctx := context.Background()
	ask := func(p *Party, msgtype string) Decision {
		in := send(p, NewAudience(p))
		in.Event.MsgType = msgtype
		return e.Decide(ctx, in)
	}
	alice, carol := e.user("@alice:acme.example", "rnd"), e.user("@carol:acme.example", "sales")
	bob := e.Resolve(Facts{UserID: "@bob:globex.example"})
	for _, c := range []struct {
		who   *Party
		codes []string
	}{{alice, []string{"operator_no", "pool_no", "tenant_no"}}, {carol, []string{"operator_no", "tenant_no"}}, {bob, []string{"operator_no"}}} {
		d := ask(c.who, "m.image")
		var got []string
		for _, r := range d.Reasons {
			got = append(got, r.Code)
			if r.Rule == "" {
				t.Errorf("%s: reason %s without a rule", c.who.ID, r.Code)
			}
		}
		slices.Sort(got)
		if d.Allow || !slices.Equal(got, c.codes) {
			t.Errorf("%s: codes %v, want %v", c.who.ID, got, c.codes)
		}
		if d := ask(c.who, "m.text"); !d.Allow {
			t.Errorf("%s: text denied: %+v", c.who.ID, d)
		}
	}
	if d := ask(alice, "m.image"); !slices.ContainsFunc(d.Reasons, func(r Reason) bool { return strings.HasSuffix(r.Rule, "images.rego:3") }) {
		t.Errorf("reasons %+v do not name file and line of the rule", d.Reasons)
	}
}

// TestLayers_BothTenantsAreAsked: an action between two tenants needs the consent of both.
func TestLayers_BothTenantsAreAsked(t *testing.T) {
	t.Parallel()
	rule := `deny contains {"code": "closed", "message": "Not now."} if input.target.tenant == "globex.example"`
	for _, tenant := range []string{acme, globex} {
		t.Run(tenant, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t, with(acmeFiles(), tenant+"/x.rego", "package tenants[\""+tenant+"\"].room.invite\n\n"+rule+"\n"))
			ctx := context.Background()
			must(t, e.SetAgreements(ctx, []Agreement{agree(acme, globex), agree(globex, acme)}))
			alice, bob := e.user("@alice:acme.example", "office"), e.Resolve(Facts{UserID: "@bob:globex.example"})
			if d := e.Decide(ctx, invite(alice, bob, NewAudience(alice))); d.Allow || !d.Has("closed") {
				t.Errorf("%+v", d)
			}
			if d := e.Decide(ctx, invite(bob, alice, NewAudience(bob))); !d.Allow {
				t.Errorf("the other way: %+v %v", d.Reasons, d.Err)
			}
		})
	}
}

// TestLayers_TenantOfTheLayer: each layer sees itself as the tenant, and the other side as the server.
func TestLayers_TenantOfTheLayer(t *testing.T) {
	t.Parallel()
	rule := `deny contains {"code": sprintf("%s sees %s in %s", [input.tenant.name, input.server.name, input.tenant.timezone]), "message": "m"} if input.room`
	files := with(acmeFiles(), "acme.example/x.rego", tenantRule(RoomInvite, rule))
	files["globex.example/x.rego"] = "package tenants[\"globex.example\"].room.invite\n\n" + rule + "\n"
	e := newEngine(t, files)
	alice, bob := e.user("@alice:acme.example", "office"), e.Resolve(Facts{UserID: "@bob:globex.example"})
	d := e.Decide(context.Background(), invite(alice, bob, NewAudience(alice)))
	if !d.Has("acme.example sees globex.example in UTC") || !d.Has("globex.example sees acme.example in UTC") {
		t.Errorf("%+v", d.Reasons)
	}
}

// TestObligations: what layers demand is joined, the stricter wins, opposites deny.
func TestObligations(t *testing.T) {
	t.Parallel()
	files := acmeFiles()
	files["operator/x.rego"] = "package operator.event.send\n\nobligations := {\"max_bytes\": 1000, \"retention\": \"operator\", \"record\": \"full\"}\n"
	files["acme.example/x.rego"] = tenantRule(EventSend, `obligations := {"max_bytes": 100, "retention": "tenant", "push_format": "event_id_only", "federate": false, "history_visibility": "joined"}`)
	e := newEngine(t, files)
	ctx := context.Background()
	alice := e.user("@alice:acme.example", "rnd")
	d := e.Decide(ctx, send(alice, NewAudience(alice)))
	want := Obligations{MaxBytes: 100, Retention: "operator", RecordFull: true, PushEventIDOnly: true, NoFederation: true, HistoryVisibility: "joined"}
	if !d.Allow || d.Obligations != want {
		t.Errorf("%+v, want %+v", d, want)
	}
	big := send(alice, NewAudience(alice))
	big.Event.Size = 101
	if d := e.Decide(ctx, big); d.Allow || !d.Has(CodeTooLarge) {
		t.Errorf("larger than the limit: %+v", d)
	}
	files["operator/x.rego"] = "package operator.event.send\n\nobligations := {\"encryption\": \"required\"}\n"
	files["acme.example/x.rego"] = tenantRule(EventSend, `obligations := {"encryption": "forbidden"}`)
	e = newEngine(t, files)
	if d := e.Decide(ctx, send(alice, NewAudience(alice))); d.Allow || !d.Has(CodeObligationConflict) {
		t.Errorf("opposites: %+v", d)
	}
}

// TestContact_Agreements: two tenants meet only where both agreed, in the pools they named.
func TestContact_Agreements(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pools := func(pairs ...PoolPair) func(*Agreement) { return func(a *Agreement) { a.Scope.Pools = pairs } }
	files := with(acmeFiles(), "globex.example/pools.yaml", "buyers: {groups: [buyers], contact: open}\nstaff: {groups: [staff], contact: open}\n")
	e := newEngine(t, files)
	sales, office := e.user("@carol:acme.example", "sales"), e.user("@otto:acme.example", "office")
	buyer := e.Resolve(Facts{UserID: "@bob:globex.example", Groups: []string{"buyers"}})
	staff := e.Resolve(Facts{UserID: "@sue:globex.example", Groups: []string{"staff"}})
	for _, c := range []struct {
		name       string
		agreements []Agreement
		want       [4]bool // sales-buyer, buyer-sales, sales-staff, office-buyer
	}{
		{"none", nil, [4]bool{}},
		{"one half", []Agreement{agree(acme, globex)}, [4]bool{}},
		{"other half", []Agreement{agree(globex, acme)}, [4]bool{}},
		{"one pool each", []Agreement{agree(acme, globex, pools(PoolPair{"sales", "buyers"})), agree(globex, acme, pools(PoolPair{"buyers", "sales"}))}, [4]bool{true, true, false, false}},
		{"halves that do not match", []Agreement{agree(acme, globex, pools(PoolPair{"sales", "staff"})), agree(globex, acme, pools(PoolPair{"buyers", "sales"}))}, [4]bool{}},
		{"suspended", []Agreement{agree(acme, globex, func(a *Agreement) { a.State = "suspended" }), agree(globex, acme)}, [4]bool{}},
		{"outbound", []Agreement{agree(acme, globex, pools(PoolPair{"sales", "buyers"}), func(a *Agreement) { a.Scope.Direction = "outbound" }), agree(globex, acme)}, [4]bool{true, false, false, false}},
	} {
		must(t, e.SetAgreements(ctx, c.agreements))
		got := [4]bool{e.Contact(sales, buyer), e.Contact(buyer, sales), e.Contact(sales, staff), e.Contact(office, buyer)}
		if got != c.want {
			t.Errorf("%s: contacts %v, want %v: %+v", c.name, got, c.want, e.ContactDecision(sales, buyer).Reasons)
		}
	}
}

// TestContact_Whitelist: who is not listed is not visible.
func TestContact_Whitelist(t *testing.T) {
	t.Parallel()
	e := newEngine(t, with(acmeFiles(), "acme.example/whitelist.yaml", "whitelist: {enabled: true, groups: [staff], users: [\"@guest:acme.example\"]}\n"))
	in, out := e.user("@in:acme.example", "staff", "office"), e.user("@out:acme.example", "office")
	guest := e.user("@guest:acme.example", "office")
	if !in.Listed || out.Listed || !guest.Listed {
		t.Fatalf("listed: %t %t %t, want true false true", in.Listed, out.Listed, guest.Listed)
	}
	if e.Contact(in, out) || e.Contact(out, in) || !e.Contact(in, guest) || !e.Contact(out, out) {
		t.Errorf("contacts are not what the whitelist says")
	}
	db := e.Resolve(Facts{UserID: "@db:acme.example", Listed: true})
	if !db.Listed {
		t.Errorf("an account that an admin listed is not listed")
	}
}

// TestExplain tells the layers, the rules and the reasons.
func TestExplain(t *testing.T) {
	t.Parallel()
	files := with(acmeFiles(), "acme.example/images.rego", "package tenants[\"acme.example\"].event.send\n\n# METADATA\n# title: No images\n"+sayNo+"\n")
	e := newEngine(t, files)
	alice, carol := e.user("@alice:acme.example", "rnd"), e.user("@carol:acme.example", "sales")
	in := send(alice, NewAudience(alice))
	in.Event.MsgType = "m.image"
	x := e.Explain(context.Background(), in)
	for _, want := range []string{"DENIED  event.send", "@alice:acme.example (pools research)", "tenants[\"acme.example\"] asked by acme.example: DENIES", "reason no: No.", "images.rego:5 deny (No images)", "hansa asked by acme.example: allows", e.Revision()} {
		if !strings.Contains(x.Text, want) {
			t.Errorf("text lacks %q:\n%s", want, x.Text)
		}
	}
	if len(e.rec.records) != 0 {
		t.Errorf("Explain recorded something")
	}
	x = e.Explain(context.Background(), invite(alice, carol, NewAudience(alice)))
	if x.Decision.Allow || !strings.Contains(x.Text, "contact between the two: false") || !strings.Contains(x.Text, "pools_apart") {
		t.Errorf("text:\n%s", x.Text)
	}
	x = e.Explain(context.Background(), &Input{Point: Contact, Subject: alice, Target: carol})
	if x.Decision.Allow || !strings.Contains(x.Text, "pools_apart") {
		t.Errorf("text:\n%s", x.Text)
	}
}

// TestDecide_GivenTime: a question about another moment does not disturb what holds now.
func TestDecide_GivenTime(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	body := "deny contains {\"code\": \"late\", \"message\": \"m\"} if not clock.between(input.time, \"06:00\", \"18:00\", input.tenant.timezone)"
	e := newEngine(t, with(acmeFiles(), "acme.example/x.rego", "package tenants[\"acme.example\"].event.send\n\nimport data.hansa.lib.clock\n\n"+body+"\n"))
	must(t, e.SetAgreements(ctx, []Agreement{agree(acme, globex, func(a *Agreement) { a.ValidUntil = e.clock.now().Add(time.Hour) })}))
	generation := e.Generation()
	alice := e.user("@alice:acme.example", "rnd")
	in := send(alice, NewAudience(alice))
	for hour, want := range map[int]bool{5: false, 6: true, 17: true, 18: false} {
		in.Time = time.Date(2030, 1, 1, hour, 0, 0, 0, time.UTC)
		for range 2 {
			if d := e.Decide(ctx, in); d.Allow != want {
				t.Errorf("at %d o'clock: %+v, want %t", hour, d, want)
			}
		}
	}
	in.Time = time.Time{}
	if d := e.Decide(ctx, in); !d.Allow || d.Memo {
		t.Errorf("now: %+v", d)
	}
	if d := e.Decide(ctx, in); !d.Memo {
		t.Errorf("the same minute was not remembered")
	}
	e.clock.add(time.Minute)
	if d := e.Decide(ctx, in); d.Memo {
		t.Errorf("an answer that depends on the clock outlived its minute")
	}
	if e.Generation() != generation {
		t.Errorf("the generation moved")
	}
}

// TestContact_OnlyWhatChangedIsAskedAgain: a change of one tenant's rules, data or agreements leaves the answers about
// others in place, and none that it touches.
func TestContact_OnlyWhatChangedIsAskedAgain(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	e := newEngine(t, with(acmeFiles(), "globex.example/pools.yaml", "buyers: {groups: [buyers], contact: open}\n"))
	must(t, e.SetAgreements(ctx, []Agreement{agree(acme, globex), agree(globex, acme)}))
	a1, a2 := e.user("@a1:acme.example", "office"), e.user("@a2:acme.example")
	b1, b2 := e.user("@b1:globex.example", "buyers"), e.user("@b2:globex.example")
	pairs := map[string][2]*Party{"acme": {a1, a2}, "globex": {b1, b2}, "between": {a1, b1}}
	known := func() map[string]bool {
		out := map[string]bool{}
		s := e.current.Load()
		for name, p := range pairs {
			out[name] = s.contacts.get(s.contacts.class(e.codec, p[0]), s.contacts.class(e.codec, p[1]), 0) != nil
		}
		return out
	}
	fill := func() {
		for name, p := range pairs {
			if !e.Contact(p[0], p[1]) {
				t.Errorf("%s: no contact: %+v", name, e.ContactDecision(p[0], p[1]).Reasons)
			}
		}
	}
	expect := func(what string, want map[string]bool) {
		t.Helper()
		if got := known(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: still known %v, want %v", what, got, want)
		}
		fill()
	}
	fill()
	put(t, e.dir, "acme.example/more.yaml", "lab: {groups: [lab], contact: closed}\n")
	must(t, e.Reload(ctx))
	expect("data of acme", map[string]bool{"acme": false, "globex": true, "between": false})
	put(t, e.dir, "globex.example/x.rego", "package tenants[\"globex.example\"].contact\n\ndeny contains {\"code\": \"x\", \"message\": \"m\"} if \"never\" in input.subject.pools\n")
	must(t, e.Reload(ctx))
	expect("rules of globex", map[string]bool{"acme": true, "globex": false, "between": false})
	must(t, e.SetAgreements(ctx, []Agreement{agree(acme, globex, func(a *Agreement) { a.ID = "other" }), agree(globex, acme)}))
	expect("agreement", map[string]bool{"acme": true, "globex": true, "between": false})
	put(t, e.dir, "operator/domains.yaml", "domains: {deny: [evil.example]}\n")
	must(t, e.Reload(ctx))
	expect("operator", map[string]bool{"acme": false, "globex": false, "between": false})
	put(t, e.dir, "acme.example/x.rego", tenantRule(Contact, `deny contains {"code": "x", "message": "m"} if "hermit" in input.subject.roles`))
	must(t, e.Reload(ctx))
	expect("other members make classes", map[string]bool{"acme": false, "globex": false, "between": false})
	must(t, e.SetAgreements(ctx, nil))
	if e.Contact(a1, b1) || e.Contact(b1, a1) {
		t.Errorf("contact without agreements")
	}
}
