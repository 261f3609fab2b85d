package adminapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hansa/config"
	"hansa/federation/agreement"
	"hansa/homeserver/account"
	"hansa/homeserver/adminapi"
	"hansa/matrix"
	"hansa/policy"
	"hansa/test/hstest"
)

const (
	acme   = "acme.example"
	globex = "globex.example"
	api    = "/_hansa/admin/v1"
	canary = "canary-9f3c"
)

// house is a server with an admin listener and people of every role.
type house struct {
	*hstest.Server
	t      *testing.T
	tokens map[string]string
	// decision is the id of a recorded decision of acme, theirs of one of globex.
	decision, theirs string
}

func operator() account.Actor { return account.Operator("test") }

func newHouse(t *testing.T, files map[string]string) *house {
	t.Helper()
	bridges := t.TempDir()
	if err := os.WriteFile(filepath.Join(bridges, "mail.yaml"), []byte("id: mail\nurl: \"\"\nas_token: "+"9f8e7d6c5b4a39281706f5e4d3c2b1a04455667788aabbcc"+"\nhs_token: "+
		"17e29ac4d05b8f63e1a7720c9d4b58f6031ce7a95d82b46f"+"\nsender_localpart: mailbot\ntenant: "+acme+"\nnamespaces: {users: [{regex: \"@mail_.*\", exclusive: true}]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := hstest.New(t, hstest.Options{Policy: files, Change: func(c *config.Config) {
		c.Listen.Admin, c.Appservices.Directory = "127.0.0.1:0", bridges
	}})
	h := &house{Server: s, t: t, tokens: map[string]string{"nobody": "", "garbage": "hst_garbage", "application service": "as_token_0123456789"}}
	yes, no := true, false
	for role, change := range map[string]account.Facts{
		"user": {}, "admin": {Admin: &yes}, "auditor": {Roles: &[]string{"auditor"}}, "former": {Admin: &yes}, "suspended": {Admin: &yes},
		"locked": {Admin: &yes}, "ghost": {Admin: &yes, Kind: ptr("ghost")}, "self": {Admin: &yes}, "second": {Admin: &yes},
	} {
		u := s.User("@" + role + ":" + acme)
		h.tokens[role] = u.Token
		if change != (account.Facts{}) {
			h.must(s.Accounts.SetFacts(t.Context(), operator(), u.ID, change))
		}
	}
	u := s.User("@boss:" + globex)
	h.tokens["other"] = u.Token
	h.must(s.Accounts.SetFacts(t.Context(), operator(), u.ID, account.Facts{Admin: &yes}))
	h.must(s.Accounts.SetFacts(t.Context(), operator(), "@former:"+acme, account.Facts{Admin: &no}))
	h.must(s.Accounts.Suspend(t.Context(), operator(), "@suspended:"+acme, true))
	h.must(s.Accounts.Lock(t.Context(), operator(), "@locked:"+acme, true))
	s.User("@"+canary+":"+acme, canary)
	s.User("@"+canary+":"+globex, canary)
	h.decision = h.denied("@user:"+acme, acme)
	h.theirs = h.denied("@"+canary+":"+globex, globex)
	return h
}

func ptr(s string) *string { return &s }

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// denied makes a decision that is recorded, and returns its id.
func (h *house) denied(user, tenant string) string {
	h.t.Helper()
	p, err := h.Accounts.Party(h.t.Context(), matrix.UserID(user))
	h.must(err)
	d := h.Policy.Decide(h.t.Context(), &policy.Input{Point: policy.AdminAction, Tenant: policy.Tenant{Name: tenant}, Subject: p,
		Admin: &policy.Admin{Action: canary, Tenant: tenant}})
	if d.Allow {
		h.t.Fatal("a person without a role may administer")
	}
	return d.ID
}

type answer struct {
	status int
	code   string
	raw    string
	header http.Header
}

// ask makes a request to the admin listener.
func (h *house) ask(token, method, path, body string, header ...string) answer {
	h.t.Helper()
	return h.send("http://"+h.AdminAddr()+api+path, token, method, body, header...)
}

// operate makes a request on the socket.
func (h *house) operate(method, path, body string, header ...string) answer {
	h.t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return adminapi.DialSocket(ctx, h.Config.AdminSocket())
	}}}
	defer client.CloseIdleConnections()
	return h.with(client, "http://socket"+api+path, "", method, body, header...)
}

func (h *house) send(url, token, method, body string, header ...string) answer {
	h.t.Helper()
	return h.with(http.DefaultClient, url, token, method, body, header...)
}

func (h *house) with(client *http.Client, url, token, method, body string, header ...string) answer {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), method, url, strings.NewReader(body))
	h.must(err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	h.must(err)
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	h.must(err)
	var e struct {
		Code string `json:"errcode"`
	}
	_ = json.Unmarshal(raw, &e) // not every answer is JSON
	return answer{resp.StatusCode, e.Code, string(raw), resp.Header}
}

// call is a request to a route that is in order, about things of acme.
func (h *house) call(r adminapi.RouteInfo) (path, body string) {
	path = strings.NewReplacer("{user_id}", "@"+canary+":"+acme, "{tenant}", acme, "{partner}", globex, "{bridge}", "mail", "{id}", h.decision).Replace(r.Path)
	switch r.Action {
	case "user.add":
		body = `{"user_id":"@new:` + acme + `","password":"new-Kennwort-78"}`
	case "user.facts":
		body = `{"groups":["` + canary + `"]}`
	case "user.passwd":
		body = `{"password":"other-Kennwort-77"}`
	case "policy.explain":
		body = `{"decision_id":"` + h.decision + `"}`
	}
	return path, body
}

func TestAD370_EveryRoleOnEveryRoute(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	for _, r := range adminapi.Routes() {
		path, body := h.call(r)
		for role, token := range h.tokens {
			if role == "admin" || role == "self" || role == "second" {
				continue // below
			}
			got := h.ask(token, r.Method, path, body)
			want := []int{http.StatusForbidden}
			switch {
			case r.Public:
				want = []int{http.StatusOK}
			case role == "nobody", role == "garbage", role == "application service", role == "locked":
				want = []int{http.StatusUnauthorized}
			case role == "auditor" && strings.HasPrefix(r.Action, "audit."):
				want = []int{http.StatusOK}
			case role == "other" && strings.Contains(r.Path, "{") && !strings.Contains(r.Path, "{partner}"), role == "other" && body != "" && r.Action != "user.facts":
				want = []int{http.StatusNotFound}
			case role == "other" && strings.Contains(r.Path, "{partner}"):
				want = []int{http.StatusBadRequest} // globex with globex
			case role == "other" && !r.Operator:
				want = []int{http.StatusOK}
			}
			if !slices.Contains(want, got.status) {
				t.Errorf("%s as %s: %d %s, want %v", r.Method+" "+r.Path, role, got.status, got.raw, want)
			}
			if got.status == http.StatusForbidden && got.code != matrix.CodeForbidden && got.code != matrix.CodeUserSuspended {
				t.Errorf("%s %s as %s: errcode %s", r.Method, r.Path, role, got.code)
			}
			if role == "user" && !r.Public && !r.Operator && !strings.Contains(got.raw, "org.hansa.decision_id") {
				t.Errorf("%s %s: the refusal of a user has no decision behind it: %s", r.Method, r.Path, got.raw)
			}
			if role == "other" && !r.Public && strings.Contains(got.raw, acme) && got.status == http.StatusOK {
				t.Errorf("%s %s tells an administrator of globex about acme: %s", r.Method, r.Path, got.raw)
			}
		}
	}
	// Nothing of that had an effect; and the administrator may do all of it.
	h.unchanged()
	order := adminapi.Routes()
	slices.SortStableFunc(order, func(a, b adminapi.RouteInfo) int { return last(a) - last(b) })
	for _, r := range order {
		path, body := h.call(r)
		want := http.StatusOK
		switch {
		case r.Operator:
			want = http.StatusForbidden
		case r.Action == "partner.approve", r.Action == "partner.suspend":
			want = http.StatusConflict // globex has not approved
		}
		if got := h.ask(h.tokens["admin"], r.Method, path, body); got.status != want {
			t.Errorf("%s %s as admin: %d %s, want %d", r.Method, r.Path, got.status, got.raw, want)
		}
	}
}

// last puts what ends an account or an agreement to the end.
func last(r adminapi.RouteInfo) int {
	if r.Action == "user.deactivate" || r.Action == "user.wipe" || r.Action == "partner.end" {
		return 1
	}
	return 0
}

// unchanged checks that the canary is as it was made.
func (h *house) unchanged() {
	h.t.Helper()
	acc, err := h.Accounts.Find(context.Background(), operator(), "@"+canary+":"+acme)
	h.must(err)
	if acc.Locked || acc.Suspended || acc.Deactivated || acc.Admin || len(acc.Groups) > 0 {
		h.t.Errorf("the account was changed: %+v", acc)
	}
	if ok, err := h.Accounts.Exists(context.Background(), "@new:"+acme); err != nil || ok {
		h.t.Errorf("an account was made (%v)", err)
	}
	list, err := h.Agreements.List(context.Background(), "")
	if err != nil || len(list) != 0 {
		h.t.Errorf("agreements were made: %v %v", list, err)
	}
}

func TestAD371_IdentifiersOfAnotherTenant(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	admin := h.tokens["admin"]
	foreign, missing := "@"+canary+":"+globex, "@missing:"+acme
	for _, c := range []struct{ name, method, path, body string }{
		{"path", "GET", "/users/" + foreign, ""},
		{"path of a change", "POST", "/users/" + foreign + "/lock", ""},
		{"path of a wipe", "POST", "/users/" + foreign + "/wipe", ""},
		{"path of a password", "POST", "/users/" + foreign + "/password", `{"password":"new-Kennwort-78"}`},
		{"path of facts", "PUT", "/users/" + foreign + "/facts", `{"admin":true}`},
		{"tenant in the path", "GET", "/tenants/" + globex, ""},
		{"tenant that is not hosted", "GET", "/tenants/elsewhere.example", ""},
		{"query", "GET", "/users?tenant=" + globex, ""},
		{"query of agreements", "GET", "/agreements?tenant=" + globex, ""},
		{"query of decisions", "GET", "/audit/decisions?tenant=" + globex, ""},
		{"owner of an agreement", "POST", "/agreements/" + acme + "/propose?tenant=" + globex, ""},
		{"cursor", "GET", "/users?after=" + foreign, ""},
		{"body", "POST", "/users", `{"user_id":"@new:` + globex + `"}`},
		{"body, not hosted", "POST", "/users", `{"user_id":"@new:elsewhere.example"}`},
		{"subject", "POST", "/policy/explain", `{"point":"room.create","subject":"` + foreign + `"}`},
		{"decision", "GET", "/audit/decisions/" + h.theirs, ""},
		{"decision in the body", "POST", "/policy/explain", `{"decision_id":"` + h.theirs + `"}`},
		{"room", "POST", "/policy/explain", `{"point":"room.read","subject":"@user:` + acme + `","room":"!nowhere:` + globex + `"}`},
	} {
		got := h.ask(admin, c.method, c.path, c.body)
		if got.status != http.StatusNotFound || got.code != matrix.CodeNotFound {
			t.Errorf("%s: %s %s: %d %s, want 404 M_NOT_FOUND", c.name, c.method, c.path, got.status, got.raw)
		}
	}
	// What is elsewhere and what is nowhere look the same.
	a, b := h.ask(admin, "GET", "/users/"+foreign, ""), h.ask(admin, "GET", "/users/"+missing, "")
	if a.status != b.status || strings.ReplaceAll(a.raw, foreign, "") != strings.ReplaceAll(b.raw, missing, "") {
		t.Errorf("a foreign account (%s) and a missing one (%s) can be told apart", a.raw, b.raw)
	}
	for _, path := range []string{"/users", "/tenants", "/server", "/audit/decisions", "/policy/status", "/agreements", "/users?after=@a:" + acme} {
		if got := h.ask(admin, "GET", path, ""); got.status != 200 || strings.Contains(got.raw, globex) || strings.Contains(got.raw, h.Dir) {
			t.Errorf("%s tells about another tenant or the machine: %d %s", path, got.status, got.raw)
		}
	}
	acc, err := h.Accounts.Find(t.Context(), operator(), matrix.UserID(foreign))
	if err != nil || acc.Locked || acc.Deactivated || acc.Admin {
		t.Errorf("the account of globex was changed: %+v %v", acc, err)
	}
}

// What the rules of another tenant are and say about its people stays there.
func TestAD371_ExplanationsStopAtTheWall(t *testing.T) {
	t.Parallel()
	h := newHouse(t, map[string]string{globex + "/secret.rego": `package tenants["globex.example"].room.invite

deny contains {"code": "closed", "message": "Not today."} if input.subject.tenant != "` + canary + `"
`})
	for from, to := range map[string]string{acme: globex, globex: acme} {
		actor := agreement.Actor{Party: &policy.Party{Kind: "operator", ID: "operator", Tenant: from, Local: true, Listed: true}}
		if from == acme {
			_, err := h.Agreements.Propose(t.Context(), actor, matrix.ServerName(from), matrix.ServerName(to), agreement.Terms{})
			h.must(err)
		}
	}
	got := h.ask(h.tokens["admin"], "POST", "/policy/explain", `{"point":"room.invite","subject":"@user:`+acme+`","target":"@`+canary+`:`+globex+`"}`)
	if got.status != http.StatusOK {
		t.Fatalf("explain: %d %s", got.status, got.raw)
	}
	for _, leak := range []string{`tenants[\"globex`, "secret.rego", `(pools `} {
		if strings.Contains(got.raw, leak) {
			t.Errorf("the explanation for acme says %q: %s", leak, got.raw)
		}
	}
	p, err := h.Accounts.Party(t.Context(), matrix.UserID("@user:"+acme))
	h.must(err)
	target, err := h.Accounts.Party(t.Context(), matrix.UserID("@"+canary+":"+globex))
	h.must(err)
	d := h.Policy.Decide(t.Context(), &policy.Input{Point: policy.RoomInvite, Tenant: policy.Tenant{Name: acme}, Subject: p, Target: target})
	for _, path := range []string{"/audit/decisions/" + d.ID, "/audit/decisions"} {
		got := h.ask(h.tokens["auditor"], "GET", path, "")
		if got.status != 200 || !strings.Contains(got.raw, d.ID) {
			t.Errorf("%s: %d %s", path, got.status, got.raw)
		}
		if strings.Contains(got.raw, `"pools":["`+canary) || strings.Contains(got.raw, `tenants[\"globex`) {
			t.Errorf("%s tells acme what globex knows: %s", path, got.raw)
		}
	}
}

func TestAD375_NoSecretsInAnswers(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	secrets := []string{"$argon2", hstest.Password, "other-Kennwort-77", "new-Kennwort-78"}
	for _, tok := range h.tokens {
		if tok != "" {
			secrets = append(secrets, tok)
		}
	}
	for _, tn := range h.Config.Tenants {
		key, err := os.ReadFile(tn.SigningKeyFile)
		h.must(err)
		fields := strings.Fields(string(key))
		secrets = append(secrets, fields[len(fields)-1])
	}
	for _, r := range adminapi.Routes() {
		path, body := h.call(r)
		for _, token := range []string{h.tokens["admin"], h.tokens["user"]} {
			got := h.ask(token, r.Method, path, body)
			for _, s := range secrets {
				if bytes.Contains([]byte(got.raw), []byte(s)) {
					t.Errorf("%s %s: the answer holds a secret (%.12s...): %s", r.Method, r.Path, s, got.raw)
				}
			}
			if !r.Public && got.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s %s may be kept by caches", r.Method, r.Path)
			}
		}
	}
}

func TestAD374_AdministratorsKeepTheirAccount(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	self := "/users/@self:" + acme
	for _, c := range [][3]string{{"POST", self + "/lock", ""}, {"POST", self + "/suspend", ""}, {"POST", self + "/deactivate", ""}, {"POST", self + "/wipe", ""}, {"PUT", self + "/facts", `{"admin":false}`}} {
		if got := h.ask(h.tokens["self"], c[0], c[1], c[2]); got.status != http.StatusConflict {
			t.Errorf("%s %s by themselves: %d %s, want 409", c[0], c[1], got.status, got.raw)
		}
	}
}

func TestAD373_NobodyGivesThemselvesFacts(t *testing.T) {
	t.Parallel()
	h := newHouse(t, map[string]string{acme + "/admin.yaml": `admin: {roles: {admin: ["*"], helpdesk: [user.list, user.add, user.lock]}}` + "\n"})
	u := h.User("@desk:" + acme)
	h.must(h.Accounts.SetFacts(t.Context(), operator(), u.ID, account.Facts{Roles: &[]string{"helpdesk"}}))
	for _, c := range [][3]string{
		{"PUT", "/users/@desk:" + acme + "/facts", `{"groups":["board"]}`},
		{"PUT", "/users/@desk:" + acme + "/facts", `{"admin":true}`},
		{"PUT", "/users/@desk:" + acme + "/facts", `{"roles":["admin"]}`},
		{"POST", "/users", `{"user_id":"@puppet:` + acme + `","admin":true}`},
		{"POST", "/users", `{"user_id":"@puppet:` + acme + `","roles":["admin"]}`},
	} {
		if got := h.ask(u.Token, c[0], c[1], c[2]); got.status != http.StatusForbidden {
			t.Errorf("%s %s %s: %d %s, want 403", c[0], c[1], c[2], got.status, got.raw)
		}
	}
	if got := h.ask(u.Token, "POST", "/users", `{"user_id":"@plain:`+acme+`"}`); got.status != http.StatusOK {
		t.Errorf("the help desk makes an account: %d %s", got.status, got.raw)
	}
}

// An action that needs a second person is done when that person is there, and not for the word of the first.
func TestApproval(t *testing.T) {
	t.Parallel()
	h := newHouse(t, map[string]string{acme + "/admin.yaml": "admin: {approval: [user.wipe]}\n"})
	wipe := func(header ...string) answer {
		return h.ask(h.tokens["admin"], "POST", "/users/@"+canary+":"+acme+"/wipe", "", header...)
	}
	reason := []string{adminapi.HeaderReason, "left the company"}
	for name, header := range map[string][]string{
		"alone":                     reason,
		"no reason":                 {adminapi.HeaderApproval, h.tokens["second"]},
		"by the same person":        append([]string{adminapi.HeaderApproval, h.tokens["admin"]}, reason...),
		"by a user":                 append([]string{adminapi.HeaderApproval, h.tokens["user"]}, reason...),
		"by an administrator of B":  append([]string{adminapi.HeaderApproval, h.tokens["other"]}, reason...),
		"by a former administrator": append([]string{adminapi.HeaderApproval, h.tokens["former"]}, reason...),
	} {
		if got := wipe(header...); got.status != http.StatusForbidden {
			t.Errorf("%s: %d %s, want 403", name, got.status, got.raw)
		}
	}
	both := append([]string{adminapi.HeaderApproval, h.tokens["second"]}, reason...)
	if got := wipe(both...); got.status != http.StatusOK {
		t.Errorf("two administrators: %d %s", got.status, got.raw)
	}
	h = newHouse(t, nil)
	desk := h.User("@desk:" + acme)
	h.must(h.Accounts.SetFacts(t.Context(), operator(), desk.ID, account.Facts{Roles: &[]string{"desk"}}))
	h.WritePolicy(acme+"/admin.yaml", `admin: {roles: {admin: ["*"], desk: [user.facts]}, approval: ["partner.*", user.roles, user.wipe]}`+"\n")
	h.ReloadPolicy()
	for name, want := range map[string]int{"alone": http.StatusForbidden, "together": http.StatusOK} {
		header := both[2:]
		if name == "together" {
			header = append([]string{adminapi.HeaderApproval, h.tokens["second"]}, reason...)
		}
		if got := h.ask(h.tokens["admin"], "POST", "/agreements/"+globex+"/propose", "", header...); got.status != want {
			t.Errorf("propose, %s: %d %s, want %d", name, got.status, got.raw, want)
		}
	}
	// Who may change facts and not roles approves no roles.
	for token, want := range map[string]int{desk.Token: http.StatusForbidden, h.tokens["second"]: http.StatusOK} {
		header := append([]string{adminapi.HeaderApproval, token}, reason...)
		if got := h.ask(h.tokens["admin"], "PUT", "/users/@user:"+acme+"/facts", `{"roles":["desk"]}`, header...); got.status != want {
			t.Errorf("roles: %d %s, want %d", got.status, got.raw, want)
		}
		if got := h.ask(h.tokens["admin"], "POST", "/users", fmt.Sprintf(`{"user_id":"@new%d:%s","admin":true}`, want, acme), header...); got.status != want {
			t.Errorf("a new administrator: %d %s, want %d", got.status, got.raw, want)
		}
	}
	// The operator needs somebody of the tenant as well.
	for token, want := range map[string]int{"": http.StatusForbidden, h.tokens["other"]: http.StatusForbidden, h.tokens["second"]: http.StatusOK} {
		header := append([]string{adminapi.HeaderApproval, token}, reason...)
		if got := h.operate("POST", "/users/@"+canary+":"+acme+"/wipe", "", header...); got.status != want {
			t.Errorf("wipe by the operator: %d %s, want %d", got.status, got.raw, want)
		}
	}
}

// A new password, a lock and a wipe end what was open; opening the account again does not bring it back.
func TestAD378_ResetAndRevoke(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	admin, whoami := h.tokens["admin"], h.URL+"/_matrix/client/v3/account/whoami"
	u := h.User("@reset:" + acme)
	path := "/users/" + string(u.ID)
	if got := h.ask(admin, "POST", path+"/password", `{"password":"other-Kennwort-77"}`); got.status != 200 {
		t.Fatalf("password: %s", got.raw)
	}
	if got := h.send(whoami, u.Token, "GET", ""); got.status != http.StatusUnauthorized {
		t.Errorf("the session lives after a new password: %d", got.status)
	}
	for _, step := range []string{"/lock", "/unlock"} {
		if got := h.ask(admin, "POST", path+step, ""); got.status != 200 {
			t.Fatalf("%s: %s", step, got.raw)
		}
	}
	if got := h.send(whoami, u.Token, "GET", ""); got.status != http.StatusUnauthorized {
		t.Errorf("opening the account revived a session: %d", got.status)
	}
	v := h.User("@wiped:" + acme)
	if got := h.ask(admin, "POST", "/users/"+string(v.ID)+"/wipe", ""); got.status != 200 {
		t.Fatalf("wipe: %s", got.raw)
	}
	if got := h.send(whoami, v.Token, "GET", ""); got.status != http.StatusUnauthorized {
		t.Errorf("the session lives after a wipe: %d", got.status)
	}
	if got := h.ask(admin, "POST", "/users/"+string(v.ID)+"/unlock", ""); got.status != http.StatusNotFound {
		t.Errorf("a wiped account was opened: %d %s", got.status, got.raw)
	}
}

func TestAD382_ChangesAreRecorded(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	if got := h.ask(h.tokens["admin"], "POST", "/users/@"+canary+":"+acme+"/lock", "", adminapi.HeaderReason, "seen abroad"); got.status != 200 {
		t.Fatalf("lock: %s", got.raw)
	}
	got := h.ask(h.tokens["auditor"], "GET", "/audit/decisions?point=admin.action&allow=true&subject=@admin:"+acme, "")
	var list adminapi.DecisionList
	h.must(json.Unmarshal([]byte(got.raw), &list))
	if len(list.Decisions) != 1 || list.Decisions[0].Action != "user.lock" || list.Decisions[0].Target != "@"+canary+":"+acme {
		t.Fatalf("the log holds %s", got.raw)
	}
	shown := h.ask(h.tokens["auditor"], "GET", "/audit/decisions/"+list.Decisions[0].ID, "")
	if !strings.Contains(shown.raw, "seen abroad") {
		t.Errorf("the reason is not kept: %s", shown.raw)
	}
	if got := h.ask(h.tokens["auditor"], "POST", "/audit/verify", ""); got.raw != `{"intact":true}` {
		t.Errorf("verify for a tenant: %s", got.raw)
	}
}

func TestAD383_PagesAreBounded(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	for _, path := range []string{"/users?limit=1000000000", "/audit/decisions?limit=1000000000", "/users?limit=-5"} {
		if got := h.ask(h.tokens["admin"], "GET", path, ""); got.status != 200 {
			t.Errorf("%s: %d %s", path, got.status, got.raw)
		}
	}
	seen, after := 0, ""
	for {
		got := h.ask(h.tokens["admin"], "GET", "/users?limit=3&after="+after, "")
		var page struct {
			Users []struct {
				ID string `json:"user_id"`
			} `json:"users"`
			Next string `json:"next"`
		}
		h.must(json.Unmarshal([]byte(got.raw), &page))
		if seen += len(page.Users); page.Next == "" {
			break
		}
		after = page.Next
	}
	if seen != 10 {
		t.Errorf("pages of three hold %d accounts together, want 10", seen)
	}
}

func TestRequests_BadInput(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	for _, c := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"POST", "/users", `{`, 400, matrix.CodeNotJSON},
		{"POST", "/users", `[]`, 400, matrix.CodeBadJSON},
		{"POST", "/users", `{"user_id":"@x:acme.example","user_id":"@y:acme.example"}`, 400, matrix.CodeBadJSON},
		{"POST", "/users", `{"USER_ID":"@x:acme.example"}`, 400, matrix.CodeBadJSON},
		{"POST", "/users", `{"user_id":7}`, 400, matrix.CodeBadJSON},
		{"POST", "/users", `{"user_id":"x"}`, 400, matrix.CodeInvalidParam},
		{"POST", "/users", strings.Repeat("[", 100000), 400, matrix.CodeBadJSON},
		{"POST", "/users", `{"user_id":"` + strings.Repeat("x", 300<<10) + `"}`, 413, matrix.CodeTooLarge},
		{"POST", "/users", `{"user_id":"@x:acme.example","password":"short"}`, 400, matrix.CodeWeakPassword},
		{"GET", "/users/nobody", "", 400, matrix.CodeInvalidParam},
		{"GET", "/users/%40a%2Fb:acme.example", "", 404, matrix.CodeNotFound},
		{"GET", "/users?limit=x", "", 400, matrix.CodeInvalidParam},
		{"GET", "/audit/decisions?since=yesterday", "", 400, matrix.CodeInvalidParam},
		{"GET", "/audit/decisions?allow=maybe", "", 400, matrix.CodeInvalidParam},
		{"POST", "/policy/explain", `{}`, 400, matrix.CodeInvalidParam},
		{"POST", "/policy/explain", `{"point":"room.create"}`, 400, matrix.CodeMissingParam},
		{"POST", "/agreements/no%20name/propose", "", 400, matrix.CodeInvalidParam},
		{"POST", "/agreements/x.example/propose", `{"features":["telepathy"]}`, 400, matrix.CodeInvalidParam},
		{"DELETE", "/users", "", 405, matrix.CodeUnrecognized},
		{"GET", "/nothing", "", 404, matrix.CodeUnrecognized},
		{"GET", "//users", "", 404, matrix.CodeUnrecognized},
		{"GET", "/users/../tenants", "", 404, matrix.CodeUnrecognized},
	} {
		got := h.ask(h.tokens["admin"], c.method, c.path, c.body)
		if got.status != c.status || got.code != c.code {
			t.Errorf("%s %s %.60s: %d %.200s, want %d %s", c.method, c.path, c.body, got.status, got.raw, c.status, c.code)
		}
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		if got := h.send("http://"+h.AdminAddr()+path, "", "GET", ""); got.status != 200 {
			t.Errorf("%s: %d", path, got.status)
		}
	}
	if got := h.send(h.URL+api+"/users", h.tokens["admin"], "GET", ""); got.status != 404 {
		t.Errorf("the client listener serves the admin API: %d", got.status)
	}
}
