package account

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

const dummyAuth = `{"type":"m.login.dummy"}`

func (k *kit) register(tenant matrix.ServerName, name, auth string, change func(*RegisterRequest)) (*LoginAnswer, error) {
	r := RegisterRequest{Username: name, Password: secret}
	if change != nil {
		change(&r)
	}
	body := fmt.Sprintf(`{"username":%s,"password":%s}`, quote(r.Username), quote(r.Password))
	if auth != "" {
		body = withAuth(body, auth)
	}
	return k.Register(context.Background(), tenant, from("192.0.2.1"), "user", r, proof("POST", "/register", body))
}

func TestRegister_InOneCallOrTwo(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		k.heard()
		a, err := k.register(acme, "anna", dummyAuth, func(r *RegisterRequest) { r.DeviceID, r.InitialDeviceDisplayName = "PHONE", "phone" })
		must(t, err)
		if a.UserID != anna || a.DeviceID != "PHONE" || a.AccessToken == "" || a.RefreshToken != "" {
			t.Errorf("answer = %+v", a)
		}
		if got := fmt.Sprint(k.policy.points()); got != "[account.register account.login]" {
			t.Errorf("asked %s", got)
		}
		if got := k.heard(); !contains(got, "party "+string(anna)) || !contains(got, "devices "+string(anna)) {
			t.Errorf("heard %v", got)
		}
		k.caller(a.AccessToken)
		_, err = k.register(acme, "Bob", "", nil)
		e := asMatrix(err)
		id := uiaSession(t, err)
		if e.Code != "" || e.Message != "" || fmt.Sprint(e.Extra["flows"]) != "[map[stages:[m.login.dummy]]]" {
			t.Errorf("challenge = %+v", e)
		}
		a, err = k.register(acme, "Bob", `{"type":"m.login.dummy","session":"`+id+`"}`, func(r *RegisterRequest) { r.RefreshToken = true })
		must(t, err)
		if a.UserID != bob || a.RefreshToken == "" {
			t.Errorf("answer = %+v", a)
		}
		a, err = k.register(acme, "", dummyAuth, func(r *RegisterRequest) { r.InhibitLogin = true })
		must(t, err)
		if a.AccessToken != "" || a.DeviceID != "" || !strings.HasPrefix(string(a.UserID), "@u") {
			t.Errorf("answer = %+v", a)
		}
		_, err = k.register(acme, "dora", dummyAuth, func(r *RegisterRequest) { r.Password = "" })
		wants(t, "no password", err, 400, matrix.CodeMissingParam)
		_, err = k.register(acme, "dora", "", func(r *RegisterRequest) { r.Password = "" })
		uiaSession(t, err) // the flows are for everybody
		_, err = k.register(acme, "dora", "", func(r *RegisterRequest) { r.Password = "short" })
		wants(t, "weak password", err, 400, matrix.CodeWeakPassword)
		_, err = k.register(acme, "dora", `{"type":"m.login.password","password":"x"}`, nil)
		wants(t, "stage of no flow", err, 401, matrix.CodeUnrecognized)
		for kind, want := range map[string]string{"guest": matrix.CodeForbidden, "king": matrix.CodeInvalidParam} {
			_, err = k.Register(context.Background(), acme, from("192.0.2.1"), kind, RegisterRequest{}, proof("POST", "/register", "{}"))
			if _, c := code(err); c != want {
				t.Errorf("kind %s: %v", kind, err)
			}
		}
	})
}

func TestC170_Registration(t *testing.T) {
	exclusive := func(k *kit, d *Deps) {
		d.Exclusive = func(id matrix.UserID) bool { return strings.HasPrefix(string(id), "@irc_") }
	}
	each(t, nil, exclusive, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna})
		for _, tenant := range []matrix.ServerName{"closed.example", "nowhere.example", ""} {
			_, err := k.register(tenant, "zoe", dummyAuth, nil)
			wants(t, "closed", err, 403, matrix.CodeForbidden)
			wants(t, "closed", k.Available(ctx, tenant, from("192.0.2.1"), "zoe"), 403, matrix.CodeForbidden)
		}
		for name, want := range map[string]string{"anna": matrix.CodeUserInUse, "Anna": matrix.CodeUserInUse, "ANNA": matrix.CodeUserInUse,
			"\u0430nna": matrix.CodeInvalidUsername, "ａnna": matrix.CodeInvalidUsername, "änna": matrix.CodeInvalidUsername, "anna\u200b": matrix.CodeInvalidUsername,
			"a\u212aarl": matrix.CodeInvalidUsername, "an na": matrix.CodeInvalidUsername, "anna:x": matrix.CodeInvalidUsername, "@anna": matrix.CodeInvalidUsername,
			"12345": matrix.CodeInvalidUsername, "irc_joe": matrix.CodeExclusive, "IRC_joe": matrix.CodeExclusive, "anna\x00": matrix.CodeInvalidUsername,
			strings.Repeat("a", 256): matrix.CodeInvalidUsername, strings.Repeat("a", 243): matrix.CodeInvalidUsername} {
			_, err := k.register(acme, name, "", nil) // before any authentication
			wants(t, fmt.Sprintf("register %.20q", name), err, 400, want)
			if name != "" {
				wants(t, fmt.Sprintf("available %.20q", name), k.Available(ctx, acme, from("192.0.2.1"), name), 400, want)
			}
		}
		must(t, k.Available(ctx, acme, from("192.0.2.1"), strings.Repeat("a", 241)))
		must(t, k.Available(ctx, acme, from("192.0.2.1"), "a=b/c+d.e_f-1"))
		// Exactly one winner.
		var wg sync.WaitGroup
		var won, lost atomic.Int64
		for i := range 16 {
			wg.Go(func() {
				name := "carl"
				if i%2 == 0 {
					name = "Carl"
				}
				_, err := k.register(acme, name, dummyAuth, nil)
				if s, c := code(err); err == nil {
					won.Add(1)
				} else if s == 400 && c == matrix.CodeUserInUse {
					lost.Add(1)
				} else {
					t.Errorf("%d %s", s, c)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 || lost.Load() != 15 {
			t.Errorf("%d winners and %d losers", won.Load(), lost.Load())
		}
		must(t, k.Wipe(ctx, Operator(""), "@carl:acme.example"))
		_, err := k.register(acme, "carl", dummyAuth, nil)
		wants(t, "name of a closed account", err, 400, matrix.CodeUserInUse)
		_, err = k.Add(ctx, Operator(""), NewUser{ID: "@carl:acme.example"})
		wants(t, "name of a closed account by an admin", err, 400, matrix.CodeUserInUse)
	})
}

func TestRegister_PolicyComesBeforeTheEffect(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		for _, point := range []policy.Point{policy.AccountRegister, policy.AccountLogin} {
			k.policy.refuse = func(in *policy.Input) bool { return in.Point == point }
			_, err := k.register(acme, "anna", dummyAuth, nil)
			if e := wants(t, string(point), err, 403, matrix.CodeForbidden); e.Extra["org.hansa.decision_id"] != "test" {
				t.Errorf("%+v", e)
			}
			_, err = k.load(ctx, anna)
			wants(t, "the account", err, 404, matrix.CodeNotFound)
		}
		k.policy.refuse = nil
		k.policy.points()
		_, err := k.register(acme, "anna", dummyAuth, nil)
		must(t, err)
		in := k.policy.inputs[0]
		if in.Subject.Kind != "anonymous" || in.Target.ID != string(anna) || in.Account.Username != "anna" || in.Account.Via != "client" ||
			in.Account.Registration != "open" || in.Request.IP != "192.0.2.1" || in.Tenant.Name != "acme.example" {
			t.Errorf("asked %+v", in)
		}
	})
}

func TestRegister_ByToken(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		op := Operator("")
		must(t, k.AddRegistrationToken(ctx, op, globex, "twice", 2, time.Time{}))
		must(t, k.AddRegistrationToken(ctx, op, globex, "today", -1, k.clock().Add(time.Hour)))
		for what, err := range map[string]error{"twice": k.AddRegistrationToken(ctx, op, globex, "twice", 1, time.Time{}),
			"bad letters": k.AddRegistrationToken(ctx, op, globex, "a b", 1, time.Time{}), "no use": k.AddRegistrationToken(ctx, op, globex, "x", 0, time.Time{})} {
			wants(t, what, err, 400, matrix.CodeInvalidParam)
		}
		n := 0
		by := func(token, session string) error {
			n++
			auth := fmt.Sprintf(`{"type":"m.login.registration_token","token":"%s"%s}`, token, session)
			_, err := k.register(globex, fmt.Sprint("user", n), auth, nil)
			return err
		}
		valid := func(token string) bool {
			ok, err := k.IsRegistrationTokenValid(ctx, globex, from("192.0.2.1"), token)
			must(t, err)
			return ok
		}
		_, err := k.register(globex, "gus", dummyAuth, nil)
		wants(t, "without a token", err, 401, matrix.CodeUnrecognized)
		for _, bad := range []string{"", "wrong", "Twice", strings.Repeat("x", 100)} {
			wants(t, bad, by(bad, ""), 401, matrix.CodeUnauthorized)
			if valid(bad) {
				t.Errorf("%q is valid", bad)
			}
		}
		must(t, by("from-a-file", ""))
		must(t, by("today", ""))
		if !valid("today") || !valid("twice") || !valid("from-a-file") {
			t.Error("good tokens are not valid")
		}
		k.pass(time.Hour)
		wants(t, "expired", by("today", ""), 401, matrix.CodeUnauthorized)
		// A token for two, used by eight at a time.
		var wg sync.WaitGroup
		var won atomic.Int64
		for i := range 8 {
			wg.Go(func() {
				if _, err := k.register(globex, fmt.Sprint("race", i), `{"type":"m.login.registration_token","token":"twice"}`, nil); err == nil {
					won.Add(1)
				} else if s, _ := code(err); s != 401 && s != 403 {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 2 || valid("twice") {
			t.Errorf("%d accounts by a token for two", won.Load())
		}
		list, err := k.ListRegistrationTokens(ctx, op, globex)
		must(t, err)
		if len(list) != 2 || list[0].Uses+list[1].Uses != 3 {
			t.Errorf("tokens %+v", list)
		}
		if text := dump(t, k); strings.Contains(text, "twice") || strings.Contains(text, "today") {
			t.Error("the database holds a registration token")
		}
		must(t, k.DeleteRegistrationToken(ctx, op, globex, "twice"))
		wants(t, "deleted again", k.DeleteRegistrationToken(ctx, op, globex, "twice"), 404, matrix.CodeNotFound)
		if ok, err := k.IsRegistrationTokenValid(ctx, acme, from("192.0.2.1"), "from-a-file"); ok || err != nil {
			t.Errorf("a token of one tenant at another: %v %v", ok, err)
		}
		_, err = k.IsRegistrationTokenValid(ctx, "closed.example", from("192.0.2.1"), "x")
		wants(t, "closed", err, 403, matrix.CodeForbidden)
	})
}

func synapseMAC(key string, parts ...string) string {
	m := hmac.New(sha1.New, []byte(key))
	m.Write([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(m.Sum(nil))
}

func TestC171_SharedSecretRegistration(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		c := from("192.0.2.1")
		nonce := func() string {
			n, err := k.Nonce(acme, c)
			must(t, err)
			return n
		}
		reg := func(r SecretRequest) (*LoginAnswer, error) { return k.RegisterBySecret(ctx, acme, c, r) }
		n := nonce()
		good := SecretRequest{Nonce: n, Username: "anna", Password: secret, MAC: synapseMAC("shared", n, "anna", secret, "notadmin")}
		a, err := reg(good)
		must(t, err)
		if by := k.caller(a.AccessToken); by.UserID != anna || by.Admin {
			t.Errorf("session %+v", by.Session)
		}
		_, err = reg(good)
		wants(t, "nonce used twice", err, 403, matrix.CodeForbidden)
		n = nonce()
		bot := "bot"
		a, err = reg(SecretRequest{Nonce: n, Username: "Robot", Password: secret, Admin: true, UserType: &bot, DisplayName: "R2",
			MAC: synapseMAC("shared", n, "Robot", secret, "admin", "bot")})
		must(t, err)
		by := k.caller(a.AccessToken)
		if by.UserID != "@robot:acme.example" || !by.Admin || by.Kind != "bot" || !contains(by.Party.Roles, "admin") {
			t.Errorf("session %+v", by.Session)
		}
		if p, err := k.LoadProfile(ctx, by.UserID); err != nil || p.String("displayname") != "R2" {
			t.Errorf("profile %v %v", p, err)
		}
		for what, change := range map[string]func(*SecretRequest){
			"wrong secret":     func(r *SecretRequest) { r.MAC = synapseMAC("guess", r.Nonce, "carl", secret, "notadmin") },
			"admin slipped in": func(r *SecretRequest) { r.Admin = true },
			"other name":       func(r *SecretRequest) { r.Username = "dora" },
			"no hex":           func(r *SecretRequest) { r.MAC = "zz" },
			"short MAC":        func(r *SecretRequest) { r.MAC = r.MAC[:38] },
			"made-up nonce":    func(r *SecretRequest) { r.Nonce = strings.Repeat("ab", 40) },
			"no nonce":         func(r *SecretRequest) { r.Nonce = "x" },
			"nonce of another tenant": func(r *SecretRequest) {
				r.Nonce = hex.EncodeToString(append(make([]byte, 24), nonceMAC(Tenant{Name: globex, SharedSecret: []byte("shared")}, make([]byte, 24))...))
				r.MAC = synapseMAC("shared", r.Nonce, "carl", secret, "notadmin")
			},
		} {
			n := nonce()
			r := SecretRequest{Nonce: n, Username: "carl", Password: secret, MAC: synapseMAC("shared", n, "carl", secret, "notadmin")}
			before := r
			change(&r)
			_, err := reg(r)
			wants(t, what, err, 403, matrix.CodeForbidden)
			if r.Nonce == n { // a wrong try uses the nonce up
				_, err = reg(before)
				wants(t, what+", then right", err, 403, matrix.CodeForbidden)
			}
		}
		n = nonce()
		k.pass(60 * time.Second)
		_, err = reg(SecretRequest{Nonce: n, Username: "carl", Password: secret, MAC: synapseMAC("shared", n, "carl", secret, "notadmin")})
		wants(t, "after 60 s", err, 403, matrix.CodeForbidden)
		// At the very same time, on two nodes.
		node := k.another(k.DB, nil)
		n = nonce()
		var wg sync.WaitGroup
		var won atomic.Int64
		for i := range 8 {
			wg.Go(func() {
				s := k.Service
				if i%2 == 0 {
					s = node
				}
				name := fmt.Sprint("racer", i)
				if _, err := s.RegisterBySecret(ctx, acme, c, SecretRequest{Nonce: n, Username: name, Password: secret,
					MAC: synapseMAC("shared", n, name, secret, "notadmin")}); err == nil {
					won.Add(1)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("%d accounts by one nonce", won.Load())
		}
		_, err = reg(SecretRequest{Nonce: "x", Username: "a", Password: secret})
		wants(t, "no MAC", err, 400, matrix.CodeMissingParam)
		_, err = k.Nonce(globex, c)
		wants(t, "tenant without a secret", err, 400, matrix.CodeUnknown)
		n = nonce()
		_, err = reg(SecretRequest{Nonce: n, Username: "anna", Password: secret, MAC: synapseMAC("shared", n, "anna", secret, "notadmin")})
		wants(t, "taken", err, 400, matrix.CodeUserInUse)
	})
}

func TestRegisterBySecret_WhoIsNotListedGetsNoSession(t *testing.T) {
	each(t, map[string]string{"acme.example/whitelist.yaml": "whitelist:\n  enabled: true\n"}, nil, func(t *testing.T, k *kit) {
		n, err := k.Nonce(acme, from("192.0.2.1"))
		must(t, err)
		a, err := k.RegisterBySecret(context.Background(), acme, from("192.0.2.1"), SecretRequest{Nonce: n, Username: "anna", Password: secret,
			MAC: synapseMAC("shared", n, "anna", secret, "notadmin")})
		must(t, err)
		if a.UserID != anna || a.AccessToken != "" {
			t.Errorf("answer %+v", a)
		}
		_, err = k.register(acme, "bob", dummyAuth, nil)
		wants(t, "by oneself", err, 403, matrix.CodeForbidden)
		must(t, k.DB.Read(context.Background(), func(tx *storage.Tx) error {
			n, err := tx.CountUsers(acme)
			if n != 1 {
				t.Errorf("%d accounts", n)
			}
			return err
		}))
	})
}

func TestRegister_IsLimited(t *testing.T) {
	each(t, nil, func(k *kit, d *Deps) { d.Limits.Enabled = true }, func(t *testing.T, k *kit) {
		made, refused := 0, 0
		for i := range 60 {
			_, err := k.register(acme, fmt.Sprint("user", i), dummyAuth, nil)
			if err == nil {
				made++
			} else {
				wants(t, "too many", err, 429, matrix.CodeLimitExceeded)
				refused++
			}
		}
		if made != 30 || refused != 30 {
			t.Errorf("%d made, %d refused", made, refused)
		}
	})
}
