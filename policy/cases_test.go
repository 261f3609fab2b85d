package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// with returns files with one more or another file.
func with(files map[string]string, name, text string) map[string]string {
	out := map[string]string{name: text}
	for k, v := range files {
		if k != name {
			out[k] = v
		}
	}
	return out
}

// tenantRule is a rule file of acme for a point.
func tenantRule(p Point, body string) string {
	return "package tenants[\"acme.example\"]." + string(p) + "\n\n" + body + "\n"
}

// TestE245_OddResults: only a result of the expected shape is heard; anything else denies and is an error.
func TestE245_OddResults(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"null": `deny := null`, "zero": `deny := 0`, "string": `deny := "true"`, "boolean": `deny := false`, "object": `deny := {}`,
		"list of strings": `deny := ["no"]`, "reason without message": `deny contains {"code": "x"}`, "code of a wrong type": `deny contains {"code": 1, "message": "m"}`,
		"unknown obligation": `obligations := {"encrypt": "required"}`, "odd obligation": `obligations := {"encryption": true}`, "list as obligations": `obligations := []`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t, with(acmeFiles(), "acme.example/odd.rego", tenantRule(EventSend, body)))
			alice := e.user("@alice:acme.example", "rnd")
			d := e.Decide(context.Background(), send(alice, NewAudience(alice)))
			if d.Allow || !errors.Is(d.Err, ErrEvaluation) || !d.Has(CodePolicyError) {
				t.Errorf("%+v, want a denial with ErrEvaluation", d)
			}
			if err := d.Error(); err == nil || err.Status != 503 {
				t.Errorf("Error() = %v, want 503", err)
			}
		})
	}
	t.Run("an empty list or no deny at all lets pass", func(t *testing.T) {
		t.Parallel()
		e := newEngine(t, with(acmeFiles(), "acme.example/none.rego", tenantRule(EventSend, `deny := []`)))
		alice := e.user("@alice:acme.example", "rnd")
		if d := e.Decide(context.Background(), send(alice, NewAudience(alice))); !d.Allow {
			t.Errorf("%+v, want allowed", d)
		}
	})
}

// TestE246_EvaluationError: an error inside a rule denies, and the process lives.
func TestE246_EvaluationError(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"division by zero": "deny contains {\"code\": \"x\", \"message\": \"m\"} if input.event.size / (input.event.size - input.event.size) > 1",
		"failing builtin":  "deny contains {\"code\": \"x\", \"message\": \"m\"} if to_number(input.event.type) > 1",
		"conflict":         "obligations := {\"max_bytes\": 10} if input.event.type\n\nobligations := {\"max_bytes\": 20} if input.event.size",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t, with(acmeFiles(), "acme.example/broken.rego", tenantRule(EventSend, body)))
			alice := e.user("@alice:acme.example", "rnd")
			for range 2 {
				d := e.Decide(context.Background(), send(alice, NewAudience(alice)))
				if d.Allow || d.Memo || !errors.Is(d.Err, ErrEvaluation) {
					t.Errorf("%+v, want a denial with ErrEvaluation that is not remembered", d)
				}
			}
			if r := e.rec.last(t); r.Error == "" || r.Allow {
				t.Errorf("record %+v does not tell about the error", r)
			}
			bob := e.Resolve(Facts{UserID: "@bob:globex.example"})
			if d := e.Decide(context.Background(), send(bob, NewAudience(bob))); !d.Allow {
				t.Errorf("another tenant: %+v, want allowed", d)
			}
		})
	}
}

// TestE247_RunawayPolicy: a rule that does not end is stopped, held back when it does so again, and hurts nobody else.
func TestE247_RunawayPolicy(t *testing.T) {
	t.Parallel()
	body := "deny contains {\"code\": \"slow\", \"message\": \"m\"} if {\n\tcount([1 | some a in numbers.range(1, 3000); some b in numbers.range(1, 3000); (a * b) + input.event.size == 7]) > 1\n}"
	e := newEngine(t, with(acmeFiles(), "acme.example/slow.rego", tenantRule(EventSend, body)), func(o *Options) { o.Deadline = 50 * time.Millisecond })
	alice := e.user("@alice:acme.example", "rnd")
	ctx := context.Background()
	for i := range breakerAfter {
		start := time.Now()
		d := e.Decide(ctx, send(alice, NewAudience(alice)))
		if d.Allow || !errors.Is(d.Err, ErrDeadline) {
			t.Fatalf("call %d: %+v, want a denial with ErrDeadline", i, d)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("call %d took %v", i, took)
		}
	}
	d := e.Decide(ctx, send(alice, NewAudience(alice)))
	if d.Allow || !errors.Is(d.Err, ErrDeadline) || !strings.Contains(d.Err.Error(), "held back") {
		t.Errorf("after %d: %+v, want it held back", breakerAfter, d)
	}
	e.clock.add(breakerPause + time.Second)
	if d := e.Decide(ctx, send(alice, NewAudience(alice))); d.Allow || strings.Contains(d.Err.Error(), "held back") {
		t.Errorf("after the pause: %+v, want it tried again", d)
	}
	bob := e.Resolve(Facts{UserID: "@bob:globex.example"})
	in := send(bob, NewAudience(bob))
	if d := e.Decide(ctx, in); !d.Allow && !errors.Is(d.Err, ErrDeadline) {
		t.Errorf("another tenant: %+v", d)
	}
}

// TestE249_BundleTrust: a bundle stays within its roots, its size and its folder; a bad one leaves the old set active.
func TestE249_BundleTrust(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ file, text, want string }{
		"the library":            {"acme.example/x.rego", "package hansa.points.contact\n\ndecision := {\"allow\": true, \"reasons\": [], \"obligations\": {}}\n", "belongs to the library"},
		"another tenant":         {"acme.example/x.rego", "package tenants[\"globex.example\"].contact\n\ndeny := []\n", "may not be declared"},
		"the operator":           {"acme.example/x.rego", "package operator.contact\n\ndeny := []\n", "may not be declared"},
		"no root at all":         {"acme.example/x.rego", "package acme.room\n\ndeny := []\n", "a policy declares"},
		"another tenant's rules": {"acme.example/x.rego", tenantRule(RoomCreate, "deny := data.tenants[\"globex.example\"].room.create.deny"), "may refer only to"},
		"another tenant's data":  {"acme.example/x.rego", tenantRule(RoomCreate, "deny contains {\"code\": \"x\", \"message\": \"m\"} if data.config[\"globex.example\"]"), "may refer only to"},
		"all data":               {"acme.example/x.rego", tenantRule(RoomCreate, "deny contains {\"code\": \"x\", \"message\": \"m\"} if data[_].x"), "may refer only to"},
		"data at the top":        {"pools.yaml", "research: {groups: [rnd]}\n", "must lie in the folder"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantProblem(t, refused(t, with(acmeFiles(), c.file, c.text)), c.file, 0, c.want)
		})
	}
	t.Run("the old set stays", func(t *testing.T) {
		t.Parallel()
		e := newEngine(t, acmeFiles())
		before := e.Revision()
		put(t, e.dir, "acme.example/x.rego", "package hansa.contact\n\nroom := true\n")
		if err := e.Reload(context.Background()); err == nil {
			t.Fatal("Reload accepted a package of the library")
		}
		if e.Revision() != before || e.Status().Refused == nil {
			t.Errorf("the active revision changed, or Status does not tell about the refused one")
		}
	})
}

// TestE250_DangerousBuiltins: what reaches out of the rules does not compile.
func TestE250_DangerousBuiltins(t *testing.T) {
	t.Parallel()
	for _, expr := range []string{
		`http.send({"method": "get", "url": "http://x"}).status_code == 200`, `net.lookup_ip_addr("x")`, `opa.runtime().env`,
		`rego.parse_module("x", "package x")`, `io.jwt.decode("x")`, `io.jwt.decode_verify("x", {"alg": "none"})`, `rand.intn("x", 2) == 1`, `uuid.rfc4122("x")`,
		`crypto.x509.parse_certificates("x")`, `providers.aws.sign_req({}, {}, 1)`, `graphql.is_valid("a", "b")`, `yaml.unmarshal("a")`,
		`count(input.event.type) == 1 with count as http.send`, `time.now_ns() == 1 with time.now_ns as opa.runtime`,
	} {
		body := "deny contains {\"code\": \"x\", \"message\": \"m\"} if " + expr
		ps := refused(t, with(acmeFiles(), "acme.example/x.rego", tenantRule(EventSend, body)))
		wantProblem(t, ps, "acme.example/x.rego", 3, "")
	}
	allowed := capabilities().Builtins
	for _, b := range allowed {
		if b.Nondeterministic && b.Name != "time.now_ns" && b.Name != "internal.print" {
			t.Errorf("builtin %s is allowed and not deterministic", b.Name)
		}
	}
}

// TestE251_QueryInjection: names from requests never become part of a query.
func TestE251_QueryInjection(t *testing.T) {
	t.Parallel()
	e := newEngine(t, with(acmeFiles(), "acme.example/x.rego", tenantRule(RoomInvite, `deny contains {"code": "x", "message": "m"} if input.target.id == "nobody"`)))
	ctx := context.Background()
	for _, name := range []string{`acme.example"].x`, `"] | true`, "acme.example\n", `x"; true`, "tenants", "data.hansa", "../operator", "acme.example/../operator", "`", "\x00"} {
		p := &Party{Kind: "user", ID: "@u:" + name, Tenant: name, Local: true, Listed: true, Pools: []string{name}}
		for _, in := range []*Input{send(p, NewAudience(p)), {Point: Point(name), Subject: p}, {Point: FederationInbound, Subject: p, Tenant: Tenant{Name: name}, Server: &Server{Name: name}}} {
			if d := e.Decide(ctx, in); d.Allow {
				t.Errorf("%q at %s: allowed", name, in.Point)
			}
		}
		if e.Contact(p, e.user("@alice:acme.example", "rnd")) {
			t.Errorf("%q: contact", name)
		}
	}
}

// TestE255_EncodedSlash: what the rules see is the decoded value the handler has, byte for byte.
func TestE255_EncodedSlash(t *testing.T) {
	t.Parallel()
	body := `deny contains {"code": "seen", "message": sprintf("%s|%s", [input.target.id, input.room.id])} if input.target.id`
	e := newEngine(t, with(acmeFiles(), "acme.example/x.rego", tenantRule(RoomInvite, body)))
	alice, odd := e.user("@alice:acme.example", "rnd"), e.user("@a/b%2Fc:acme.example", "rnd")
	in := invite(alice, odd, NewAudience(alice))
	in.Room.ID = "!x/%2F..:acme.example"
	d := e.Decide(context.Background(), in)
	if !slices.ContainsFunc(d.Reasons, func(r Reason) bool { return r.Message == "@a/b%2Fc:acme.example|!x/%2F..:acme.example" }) {
		t.Errorf("reasons %+v, want the names unchanged", d.Reasons)
	}
}

// TestE257_FormattedPolicyDrift: the bytes that were read are the bytes that are active, and their hash is shown.
func TestE257_FormattedPolicyDrift(t *testing.T) {
	t.Parallel()
	text := "package tenants[\"acme.example\"].event.send\n\n\n\ndeny   contains {\"code\":\"x\",\"message\":\"m\"} if   input.event.type=={\"a\":1}.a\n"
	text = strings.Replace(text, "=={\"a\":1}.a", " == \"never\"", 1)
	e := newEngine(t, with(acmeFiles(), "acme.example/ugly.rego", text))
	files, err := readBundles([]string{e.dir})
	if err != nil {
		t.Fatal(err)
	}
	st := e.Status()
	if len(st.Files) != len(files) {
		t.Fatalf("Status lists %d files, want %d", len(st.Files), len(files))
	}
	i := slices.IndexFunc(files, func(f sourceFile) bool { return strings.HasSuffix(f.name, "ugly.rego") })
	if string(files[i].data) != text || len(st.Files[i].SHA256) != 64 {
		t.Errorf("the file was changed, or no hash is shown")
	}
	put(t, e.dir, "acme.example/ugly.rego", text+" ")
	if err := e.Reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	if e.Revision() == st.Revision {
		t.Errorf("one more space did not make another revision")
	}
}

// TestE258_SuffixMatching: a domain is not matched by the end of its name.
func TestE258_SuffixMatching(t *testing.T) {
	t.Parallel()
	e := newEngine(t, acmeFiles())
	must(t, e.SetAgreements(context.Background(), []Agreement{agree(acme, "corp.example", func(a *Agreement) { a.Mutual = false })}))
	ctx := context.Background()
	for name, want := range map[string]bool{"corp.example": true, "evilcorp.example": false, "corp.example.evil": false, "a.corp.example": false, "orp.example": false} {
		in := &Input{Point: FederationInbound, Tenant: Tenant{Name: acme}, Subject: ServerParty(name, false), Server: &Server{Name: name}}
		if d := e.Decide(ctx, in); d.Allow != want {
			t.Errorf("partner %s: %+v, want %t", name, d, want)
		}
	}
}

// TestE259_CaseAndPort: names in data are compared without case; another port is another server.
func TestE259_CaseAndPort(t *testing.T) {
	t.Parallel()
	partners := func(name string) map[string]string {
		return with(acmeFiles(), "acme.example/partners.yaml", fmt.Sprintf("partners: {%q: {pools: \"*\", features: \"*\"}}\n", name))
	}
	wantProblem(t, refused(t, partners("Partner.Example")), "", 0, "Partner.Example")
	e := newEngine(t, partners("other.example:8448"))
	ctx := context.Background()
	must(t, e.SetAgreements(ctx, []Agreement{agree("Acme.Example", "Partner.Example.", func(a *Agreement) { a.Mutual = false })}))
	s := e.current.Load()
	for name, want := range map[string]bool{"partner.example": true, "PARTNER.example": true, "partner.example.": true, "partner.example:8448": false, "other.example": false, "Other.Example:8448": true} {
		if got := s.data.agreement(acme, normal(name)) != nil; got != want {
			t.Errorf("agreement with %s: %t, want %t", name, got, want)
		}
		in := &Input{Point: FederationInbound, Tenant: Tenant{Name: acme}, Subject: ServerParty(name, false), Server: &Server{Name: name}}
		if d := e.Decide(ctx, in); d.Allow != want {
			t.Errorf("partner %s: %+v, want %t", name, d, want)
		}
	}
}
