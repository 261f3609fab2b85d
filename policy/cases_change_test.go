package policy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestE261_CheckThenAct: whoever commits what was allowed can see that the rules changed in between.
func TestE261_CheckThenAct(t *testing.T) {
	t.Parallel()
	e := newEngine(t, acmeFiles())
	alice := e.user("@alice:acme.example", "rnd")
	ctx := context.Background()
	d := e.Decide(ctx, send(alice, NewAudience(alice)))
	if !d.Allow || !e.Fresh(d) {
		t.Fatalf("%+v: want allowed and fresh", d)
	}
	put(t, e.dir, "acme.example/x.rego", tenantRule(EventSend, `deny contains {"code": "closed", "message": "Closed."}`))
	must(t, e.Reload(ctx))
	if e.Fresh(d) {
		t.Errorf("still fresh after other rules became active")
	}
	if d := e.Decide(ctx, send(alice, NewAudience(alice))); d.Allow || !d.Has("closed") {
		t.Errorf("%+v: want denied by the new rule", d)
	}
	d = e.ContactDecision(alice, alice)
	must(t, e.SetAgreements(ctx, nil))
	if e.Fresh(d) {
		t.Errorf("still fresh after agreements changed")
	}
}

// TestE262_DecisionCache: what was allowed and remembered is not allowed any more once an agreement ends or a pool changes.
func TestE262_DecisionCache(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	t.Run("an agreement is ended", func(t *testing.T) {
		t.Parallel()
		e := newEngine(t, acmeFiles())
		alice, bob := e.user("@alice:acme.example", "office"), e.Resolve(Facts{UserID: "@bob:globex.example"})
		must(t, e.SetAgreements(ctx, []Agreement{agree(acme, globex), agree(globex, acme)}))
		in := invite(alice, bob, NewAudience(alice))
		for range 2 {
			if d := e.Decide(ctx, in); !d.Allow {
				t.Fatalf("with agreements: %+v %v", d.Reasons, d.Err)
			}
		}
		must(t, e.SetAgreements(ctx, []Agreement{agree(acme, globex), agree(globex, acme, func(a *Agreement) { a.State = "ended" })}))
		if d := e.Decide(ctx, in); d.Allow || d.Memo {
			t.Errorf("after one half ended: %+v", d)
		}
		if e.Contact(alice, bob) || e.Contact(bob, alice) {
			t.Errorf("contact after one half ended")
		}
	})
	t.Run("an agreement expires by itself", func(t *testing.T) {
		t.Parallel()
		e := newEngine(t, acmeFiles())
		alice, bob := e.user("@alice:acme.example", "office"), e.Resolve(Facts{UserID: "@bob:globex.example"})
		until := e.clock.now().Add(time.Hour)
		must(t, e.SetAgreements(ctx, []Agreement{agree(acme, globex, func(a *Agreement) { a.ValidUntil = until }), agree(globex, acme)}))
		if !e.Contact(alice, bob) {
			t.Fatalf("no contact while the agreement holds: %+v", e.ContactDecision(alice, bob))
		}
		e.clock.add(time.Hour - time.Second)
		if !e.Contact(alice, bob) {
			t.Errorf("no contact a second before the end")
		}
		d := e.ContactDecision(alice, bob)
		e.clock.add(time.Second)
		if e.Fresh(d) || e.Contact(alice, bob) {
			t.Errorf("contact after the end")
		}
	})
	t.Run("an agreement begins by itself", func(t *testing.T) {
		t.Parallel()
		e := newEngine(t, acmeFiles())
		alice, bob := e.user("@alice:acme.example", "office"), e.Resolve(Facts{UserID: "@bob:globex.example"})
		from := e.clock.now().Add(time.Hour)
		must(t, e.SetAgreements(ctx, []Agreement{agree(acme, globex, func(a *Agreement) { a.ValidFrom = from }), agree(globex, acme)}))
		if e.Contact(alice, bob) {
			t.Fatalf("contact before the agreement begins")
		}
		e.clock.add(time.Hour)
		if !e.Contact(alice, bob) {
			t.Errorf("no contact after it began")
		}
	})
	t.Run("a user leaves a pool", func(t *testing.T) {
		t.Parallel()
		e := newEngine(t, acmeFiles())
		alice, bob := e.user("@alice:acme.example", "rnd"), e.user("@bob:acme.example", "rnd")
		room := NewAudience(alice, bob)
		if d := e.Decide(ctx, send(alice, room)); !d.Allow {
			t.Fatalf("%+v", d)
		}
		moved := e.user("@alice:acme.example", "sales")
		if d := e.Decide(ctx, send(moved, room)); d.Allow || e.Contact(moved, bob) {
			t.Errorf("allowed after the group was taken away: %+v", d)
		}
		room.Add(moved)
		if d := e.Decide(ctx, send(bob, room)); d.Allow {
			t.Errorf("the others may still send into the room: %+v", d)
		}
	})
}

// TestE265_RecordHoldsNoContent: records hold no message content, search terms or addresses, and no control characters
// from rules reach them.
func TestE265_RecordHoldsNoContent(t *testing.T) {
	t.Parallel()
	body := "deny contains {\"code\": \"no\\u001b[31m\", \"message\": \"line\\nbreak\\u001b[0m\"} if input.event.content.body"
	e := newEngine(t, with(acmeFiles(), "acme.example/x.rego", tenantRule(EventSend, body)))
	if !e.Reads(EventSend, "event", "content") || e.Reads(RoomInvite, "event", "content") {
		t.Errorf("Reads does not tell which points read content")
	}
	alice := e.user("@alice:acme.example", "rnd").With(&Device{ID: "DEV"}, &Network{IP: "192.0.2.7"})
	in := send(alice, NewAudience(alice))
	in.Event.Content = map[string]any{"body": "canary-content"}
	in.Search = &Search{Term: "canary-search"}
	in.Request = &Request{IP: "192.0.2.7", UserAgent: "agent", Via: "client"}
	d := e.Decide(context.Background(), in)
	if d.Allow {
		t.Fatal("allowed")
	}
	r := e.rec.last(t)
	text := fmt.Sprintf("%s %v %s", r.Input, r.Reasons, r.Error)
	for _, canary := range []string{"canary-content", "canary-search", "192.0.2.7", "\x1b", "\n"} {
		if strings.Contains(text, canary) {
			t.Errorf("record holds %q: %s", canary, text)
		}
	}
	if in.Event.Content["body"] != "canary-content" || in.Request.IP != "192.0.2.7" {
		t.Errorf("masking changed the caller's input")
	}
	if _, err := ParseInput(r.Input); err != nil {
		t.Errorf("the recorded input cannot be read back: %v", err)
	}
}

// TestE265_RecorderDown: a decision that cannot be recorded denies, and says so.
func TestE265_RecorderDown(t *testing.T) {
	t.Parallel()
	e := newEngine(t, with(acmeFiles(), "acme.example/x.rego", tenantRule(EventSend, `obligations := {"record": "full"}`)))
	alice := e.user("@alice:acme.example", "rnd")
	in := send(alice, NewAudience(alice))
	if d := e.Decide(context.Background(), in); !d.Allow || !d.Obligations.RecordFull {
		t.Fatalf("%+v", d)
	}
	if r := e.rec.last(t); !r.Allow {
		t.Errorf("the allowed act was not recorded whole: %+v", r)
	}
	e.rec.err = errors.New("disk full")
	if d := e.Decide(context.Background(), in); d.Allow || !errors.Is(d.Err, ErrRecord) {
		t.Errorf("%+v, want a denial with ErrRecord", d)
	}
}

// TestE265_CancelledRequest: a denial is recorded although the caller has gone.
func TestE265_CancelledRequest(t *testing.T) {
	t.Parallel()
	e := newEngine(t, acmeFiles())
	alice, carol := e.user("@alice:acme.example", "rnd"), e.user("@carol:acme.example", "sales")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	d := e.Decide(ctx, invite(alice, carol, NewAudience(alice)))
	if r := e.rec.last(t); d.Allow || r.ID != d.ID {
		t.Errorf("decision %s was not recorded", d.ID)
	}
}

// TestE266_DryRun: rules and tests of one tenant see nothing of another's data, and what they print is printable.
func TestE266_DryRun(t *testing.T) {
	t.Parallel()
	files := with(acmeFiles(), "globex.example/pools.yaml", "secretpool: {groups: [x], contact: closed}\n")
	files["acme.example/x.rego"] = tenantRule(EventSend, `deny contains {"code": "leak", "message": "m"} if data.config[input.room.id].secretpool`)
	files["acme.example/x_test.rego"] = "package tenants[\"acme.example\"].event.send_test\n\ntest_sees_only_its_own if {\n\tnames := [name | some name, _ in data.config]\n\tprint(\"out\\u001b[31m\", names)\n\tnames == [\"acme.example\"]\n}\n"
	wantProblem(t, refused(t, files), "x_test.rego", 4, "may refer only to")
	files["acme.example/x_test.rego"] = strings.Replace(files["acme.example/x_test.rego"], "[name | some name, _ in data.config]", "[name | some name in [\"acme.example\", \"globex.example\"]; data.config[name]]", 1)
	dir := write(t, files)
	e := newEngine(t, files)
	alice := e.user("@alice:acme.example", "rnd")
	in := send(alice, NewAudience(alice))
	in.Room.ID = globex
	if d := e.Decide(context.Background(), in); !d.Allow {
		t.Errorf("rules of acme saw the data of globex: %+v", d)
	}
	results, err := Test(context.Background(), []string{dir}, []string{acme, globex}, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != 1 || !results[0].Pass || results[0].Output == "" || strings.ContainsRune(results[0].Output, 0x1b) {
		t.Errorf("results %+v, want one that passes and printed text without escapes", results)
	}
	x, err := e.Eval(context.Background(), EventSend, []byte(`{"schema":"hansa.policy/v1","time":"2026-03-02T10:00:00Z","subject":{"kind":"user","id":"@alice:acme.example","tenant":"acme.example","local":true,"listed":true,"pools":["research"]},"room":{"id":"globex.example","tenant":"acme.example","membership":"join","contact":{"allow":true}},"event":{"type":"m.room.message","size":1}}`))
	if err != nil || x.Decision.Has("leak") {
		t.Errorf("Eval: %v %+v", err, x.Decision)
	}
}

// TestE267_NoDefaultOpen: nothing is allowed for want of data, and an empty list means nobody.
func TestE267_NoDefaultOpen(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	t.Run("a fresh install has no partners", func(t *testing.T) {
		t.Parallel()
		e := newEngine(t, nil)
		alice, bob := e.user("@alice:acme.example"), e.Resolve(Facts{UserID: "@bob:globex.example"})
		stranger := e.Resolve(Facts{UserID: "@eve:elsewhere.example"})
		if e.Contact(alice, bob) || e.Contact(bob, alice) || e.Contact(alice, stranger) || e.Contact(stranger, alice) {
			t.Errorf("contact without an agreement")
		}
		in := &Input{Point: FederationInbound, Tenant: Tenant{Name: acme}, Subject: ServerParty("elsewhere.example", false), Server: &Server{Name: "elsewhere.example"}}
		if d := e.Decide(ctx, in); d.Allow {
			t.Errorf("partner without an agreement: %+v", d)
		}
	})
	t.Run("an empty whitelist lists nobody", func(t *testing.T) {
		t.Parallel()
		e := newEngine(t, with(acmeFiles(), "acme.example/whitelist.yaml", "whitelist: {enabled: true, users: [], groups: []}\n"))
		alice := e.user("@alice:acme.example", "rnd")
		if alice.Listed {
			t.Fatal("listed by an empty whitelist")
		}
		login := &Input{Point: AccountLogin, Subject: alice, Account: &Account{Username: "alice", Via: "password"}, Request: &Request{IP: "192.0.2.1", Via: "client"}}
		if d := e.Decide(ctx, login); d.Allow {
			t.Errorf("login: %+v", d)
		}
	})
	t.Run("an agreement that covers nothing", func(t *testing.T) {
		t.Parallel()
		e := newEngine(t, acmeFiles())
		empty := func(a *Agreement) { a.Scope.Pools = nil }
		must(t, e.SetAgreements(ctx, []Agreement{agree(acme, globex, empty), agree(globex, acme, empty)}))
		if alice, bob := e.user("@alice:acme.example", "office"), e.Resolve(Facts{UserID: "@bob:globex.example"}); e.Contact(alice, bob) {
			t.Errorf("contact under an agreement without pools")
		}
	})
	t.Run("an unknown tenant and an unknown point", func(t *testing.T) {
		t.Parallel()
		e := newEngine(t, acmeFiles())
		eve := e.Resolve(Facts{UserID: "@eve:elsewhere.example"})
		if d := e.Decide(ctx, send(eve, NewAudience(eve))); d.Allow || !d.Has(CodeNoTenant) {
			t.Errorf("%+v", d)
		}
		if d := e.Decide(ctx, &Input{Point: "no.point", Subject: eve}); d.Allow || d.Err == nil {
			t.Errorf("%+v", d)
		}
		if d := e.Decide(ctx, &Input{Point: EventSend}); d.Allow || d.Err == nil {
			t.Errorf("no subject: %+v", d)
		}
	})
	t.Run("a room whose audience is not known", func(t *testing.T) {
		t.Parallel()
		e := newEngine(t, acmeFiles())
		alice := e.user("@alice:acme.example", "rnd")
		if d := e.Decide(ctx, send(alice, nil)); d.Allow {
			t.Errorf("%+v", d)
		}
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
