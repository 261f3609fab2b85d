package policy

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

func TestPoints_AreDescribed(t *testing.T) {
	t.Parallel()
	seen := map[Point]bool{}
	for _, p := range Points() {
		if seen[p.Point] || p.Doc == "" || !strings.HasSuffix(p.Doc, ".") {
			t.Errorf("%s: occurs twice or has no sentence", p.Point)
		}
		seen[p.Point] = true
		if !slices.Contains([]Kind{KindAct, KindPair, KindFilter}, p.Kind) || p.Fail != failClosed && p.Fail != failRetry {
			t.Errorf("%s: kind %q, fail %q", p.Point, p.Kind, p.Fail)
		}
		for _, who := range strings.Fields(p.Asks) {
			if !slices.Contains([]string{"subject", "target", "room", "addressed"}, who) {
				t.Errorf("%s asks %q", p.Point, who)
			}
		}
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	e := newEngine(t, acmeFiles())
	must(t, e.SetAgreements(context.Background(), []Agreement{agree(acme, globex)}))
	e.Contact(e.user("@a:acme.example", "rnd"), e.user("@b:acme.example", "sales"))
	st := e.Status()
	if st.Revision != e.Revision() || st.Generation != e.Generation() || st.Agreements != 1 || st.Classes != 2 || st.OPA == "" || len(st.Files) != 1 || st.Refused != nil {
		t.Errorf("%+v", st)
	}
	if _, err := json.Marshal(st); err != nil {
		t.Error(err)
	}
}

func TestEval(t *testing.T) {
	t.Parallel()
	e := newEngine(t, acmeFiles())
	ctx := context.Background()
	input := `{"subject": {"kind": "user", "id": "@a:acme.example", "tenant": "acme.example", "local": true, "listed": true, "pools": ["research"]},
		"target": {"kind": "user", "id": "@b:acme.example", "tenant": "acme.example", "local": true, "listed": true, "pools": ["sales"]}}`
	x, err := e.Eval(ctx, ProfileRead, []byte(input))
	if err != nil || x.Decision.Allow || !x.Decision.Has("pools_apart") {
		t.Errorf("Eval = %+v, %v", x, err)
	}
	if _, err := json.Marshal(x); err != nil {
		t.Error(err)
	}
	x, err = e.Eval(ctx, "", []byte(strings.Replace(`{"point": "profile.read", `+input[1:], "sales", "research", 1)))
	if err != nil || !x.Decision.Allow {
		t.Errorf("Eval = %+v, %v", x, err)
	}
	for name, c := range map[string]struct{ point, input, want string }{
		"unknown member": {"profile.read", `{"subjet": {}}`, "subjet"}, "unknown point": {"profile.reed", input, "no decision point"}, "no subject": {"profile.read", `{}`, "subject is missing"},
		"other schema": {"profile.read", `{"schema": "hansa.policy/v9"}`, "schema"}, "no JSON": {"profile.read", `{`, "input"}, "duplicate": {"profile.read", `{"time": "2026-01-01T00:00:00Z", "time": "2026-01-01T00:00:00Z"}`, "duplicate"},
	} {
		if _, err := e.Eval(ctx, Point(c.point), []byte(c.input)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if len(e.rec.records) > 0 {
		t.Errorf("Eval recorded something")
	}
}

func TestDecision_Errors(t *testing.T) {
	t.Parallel()
	e := newEngine(t, acmeFiles())
	alice, carol := e.user("@alice:acme.example", "rnd"), e.user("@carol:acme.example", "sales")
	d := e.Decide(context.Background(), &Input{Point: ProfileRead, Subject: alice, Target: carol})
	err := d.Error()
	if err == nil || err.Status != 403 || err.Code != "M_FORBIDDEN" || err.Message != d.Reasons[0].Message || err.Extra["org.hansa.decision_id"] != d.ID || err.Extra["org.hansa.reasons"] == nil {
		t.Errorf("Error() = %+v", err)
	}
	if h := d.Hidden(); h == nil || h.Status != 404 || h.Code != "M_NOT_FOUND" || len(h.Extra) != 1 || h.Extra["org.hansa.decision_id"] != d.ID {
		t.Errorf("Hidden() = %+v", h)
	}
	ok := e.Decide(context.Background(), &Input{Point: ProfileRead, Subject: alice, Target: alice})
	if !ok.Allow || ok.Error() != nil || ok.Hidden() != nil || ok.ID == d.ID || ok.Small().ID != ok.ID {
		t.Errorf("own profile: %+v", ok)
	}
}
