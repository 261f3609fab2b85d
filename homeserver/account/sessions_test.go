package account

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"hansa/matrix"
	"hansa/policy"
	"hansa/storage/storagetest"
)

func TestAuthenticate_ReadsNothingWhenWarm(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna})
		_, a := k.login(anna, nil)
		before := k.DB.Stats()
		for range 100 {
			s, err := k.Authenticate(ctx, a.AccessToken)
			must(t, err)
			if s.UserID != anna {
				t.Fatal(s.UserID)
			}
			k.Seen(s, from("192.0.2.1"))
			if _, err := k.Authenticate(ctx, accessPrefix+strings.Repeat("A", 43)+"_AAAAAA"); err == nil {
				t.Fatal("noise is a token")
			}
		}
		if after := k.DB.Stats(); after != before {
			t.Errorf("100 requests cost %+v, before %+v", after, before)
		}
	})
}

func TestC167_TokenForms(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna})
		_, a := k.login(anna, func(r *LoginRequest) { r.RefreshToken = true })
		_, err := k.Authenticate(ctx, "")
		wants(t, "missing", err, 401, matrix.CodeMissingToken)
		tok := a.AccessToken
		if !strings.HasPrefix(tok, "hst_") || !strings.HasPrefix(a.RefreshToken, "hrt_") || len(tok) != tokenLength {
			t.Errorf("tokens %d bytes, %s..., %s...", len(tok), tok[:4], a.RefreshToken[:4])
		}
		foreign, _, err := newToken(k.Rand, accessPrefix)
		must(t, err)
		for _, bad := range []string{foreign, tok[:len(tok)-1], tok[1:], tok + "=", tok + " ", " " + tok, "mst_" + tok[4:], "hrt_" + tok[4:],
			strings.ToUpper(tok), tok + tok, strings.Repeat("x", 1<<20), "hst_", "\x00", a.RefreshToken, "Bearer " + tok, tok[:20] + "\n" + tok[21:]} {
			_, err := k.Authenticate(ctx, bad)
			if e := wants(t, fmt.Sprintf("%.60q", bad), err, 401, matrix.CodeUnknownToken); e.Extra["soft_logout"] == true || strings.Contains(e.Message, tok[4:20]) {
				t.Errorf("%.60q: %+v", bad, e)
			}
		}
		for _, bad := range []string{tok, a.RefreshToken[:len(a.RefreshToken)-1], foreign, "x"} {
			_, err := k.Refresh(ctx, from("192.0.2.1"), bad)
			wants(t, fmt.Sprintf("refresh with %.10q", bad), err, 401, matrix.CodeUnknownToken)
		}
		_, err = k.Refresh(ctx, from("192.0.2.1"), "")
		wants(t, "refresh with nothing", err, 400, matrix.CodeMissingParam)
		k.caller(tok)
	})
}

// dump returns every value of the tables that this package fills, as text, bytes also in hex.
func dump(t *testing.T, k *kit) string {
	t.Helper()
	db := storagetest.Raw(t, k.url)
	var out strings.Builder
	for _, table := range []string{"users", "devices", "access_tokens", "refresh_tokens", "uia_sessions", "registration_tokens", "used_nonces", "profiles",
		"filters", "account_data", "notices"} {
		rows, err := db.Query("SELECT * FROM " + table)
		must(t, err)
		cols, err := rows.Columns()
		must(t, err)
		for rows.Next() {
			values, dest := make([]any, len(cols)), make([]any, len(cols))
			for i := range values {
				dest[i] = &values[i]
			}
			must(t, rows.Scan(dest...))
			for _, v := range values {
				if b, ok := v.([]byte); ok {
					fmt.Fprintln(&out, string(b), hex.EncodeToString(b))
				} else {
					fmt.Fprintln(&out, v)
				}
			}
		}
		must(t, rows.Err())
		rows.Close()
	}
	return out.String()
}

func TestTokens_AreStoredHashed(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		k.add(NewUser{ID: anna})
		_, a := k.login(anna, func(r *LoginRequest) { r.RefreshToken = true })
		text := dump(t, k)
		for _, s := range []string{a.AccessToken, a.AccessToken[4:30], a.RefreshToken[4:30], hex.EncodeToString([]byte(a.AccessToken)), secret} {
			if strings.Contains(text, s) {
				t.Errorf("the database holds %.10s...", s)
			}
		}
		if !strings.Contains(text, "$argon2id$") || !strings.Contains(text, string(a.DeviceID)) {
			t.Error("the dump has not seen what it should")
		}
	})
}

func TestC166_RevocationIsAtOnceOnEveryNode(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna})
		node := k.another(k.DB, nil)
		for what, revoke := range map[string]func(Caller) error{
			"logout":       func(by Caller) error { return k.Logout(ctx, by) },
			"logout all":   func(by Caller) error { return k.LogoutAll(ctx, by) },
			"new password": func(Caller) error { return k.SetPassword(ctx, Operator(""), anna, secret) },
			"deletion of the device": func(by Caller) error {
				body := `{"devices":["` + string(by.DeviceID) + `"]}`
				id := uiaSession(t, k.DeleteDevices(ctx, by, proof("POST", "/delete_devices", body), []matrix.DeviceID{by.DeviceID}))
				return k.DeleteDevices(ctx, by, proof("POST", "/delete_devices", withAuth(body, passwordAuth(id, secret))), []matrix.DeviceID{by.DeviceID})
			},
			"login with the same device": func(by Caller) error {
				_, b := k.login(anna, func(r *LoginRequest) { r.DeviceID = string(by.DeviceID) })
				if b.DeviceID != by.DeviceID {
					t.Errorf("device %s", b.DeviceID)
				}
				return nil
			},
		} {
			by, a := k.login(anna, nil)
			open, err := node.Authenticate(ctx, a.AccessToken)
			must(t, err)
			k.heard()
			must(t, revoke(by))
			_, err = k.Authenticate(ctx, a.AccessToken)
			wants(t, what, err, 401, matrix.CodeUnknownToken)
			if !contains(k.heard(), "session "+string(anna)) {
				t.Errorf("%s: other nodes do not hear of it", what)
			}
			node.Invalidate(anna) // what the follower of the log does there
			_, err = node.Authenticate(ctx, a.AccessToken)
			wants(t, what+" on another node", err, 401, matrix.CodeUnknownToken)
			_, err = node.Recheck(ctx, open)
			wants(t, what+" for an open request", err, 401, matrix.CodeUnknownToken)
		}
	})
}

func TestC166_NothingStaleIsKept(t *testing.T) {
	t.Parallel()
	c := newSessionCache(3)
	_, epoch := c.find(tokenHash{1})
	c.drop(anna) // happens while the session is being read
	c.put(&Session{UserID: anna, hash: tokenHash{1}}, epoch)
	if s, _ := c.find(tokenHash{1}); s != nil {
		t.Error("what was read before a revocation is kept after it")
	}
	_, epoch = c.find(tokenHash{1})
	for i := range 10 {
		c.put(&Session{UserID: matrix.UserID(fmt.Sprint("@u", i, ":x")), hash: tokenHash{byte(i)}}, epoch)
	}
	if len(c.byHash) != 3 || len(c.byUser) != 3 {
		t.Errorf("%d sessions of %d users in a cache for 3", len(c.byHash), len(c.byUser))
	}
	p := newPartyCache(3)
	_, epoch = p.find(anna, 1)
	p.drop(anna)
	p.put(map[matrix.UserID]*policy.Party{anna: {}}, 1, epoch)
	if got, _ := p.find(anna, 1); got != nil {
		t.Error("facts that were read before a change are kept after it")
	}
}

func TestSessions_RunWhileTheyAreRevoked(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna})
		var tokens []string
		for range 8 {
			_, a := k.login(anna, nil)
			tokens = append(tokens, a.AccessToken)
		}
		var wg sync.WaitGroup
		for _, tok := range tokens {
			wg.Go(func() {
				for range 50 {
					s, err := k.Authenticate(ctx, tok)
					if err != nil {
						return
					}
					k.Seen(s, from("192.0.2.9"))
					k.Invalidate(anna)
				}
			})
			wg.Go(func() {
				s, err := k.Authenticate(ctx, tok)
				if err != nil {
					return
				}
				if err := k.Logout(ctx, Caller{s, Client{}}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, tok := range tokens {
			_, err := k.Authenticate(ctx, tok)
			wants(t, "after logout", err, 401, matrix.CodeUnknownToken)
		}
		if len(k.cache.byHash) != 0 {
			t.Errorf("%d sessions are still in memory", len(k.cache.byHash))
		}
	})
}

func TestRefresh_Rotates(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna})
		_, a1 := k.login(anna, func(r *LoginRequest) { r.RefreshToken = true })
		if a1.ExpiresInMS != time.Hour.Milliseconds() {
			t.Errorf("expires in %d ms", a1.ExpiresInMS)
		}
		k.pass(59 * time.Minute)
		k.caller(a1.AccessToken)
		k.pass(time.Minute)
		_, err := k.Authenticate(ctx, a1.AccessToken)
		if e := wants(t, "expired", err, 401, matrix.CodeUnknownToken); e.Extra["soft_logout"] != true {
			t.Error("an expired token is no soft logout")
		}
		k.policy.points()
		lost, err := k.Refresh(ctx, from("192.0.2.1"), a1.RefreshToken)
		must(t, err)
		if got := k.policy.points(); len(got) != 1 || got[0] != policy.AccountLogin {
			t.Errorf("asked %v, want account.login", got)
		}
		a2, err := k.Refresh(ctx, from("192.0.2.1"), a1.RefreshToken) // the answer was lost
		must(t, err)
		if a2.AccessToken == lost.AccessToken || a2.UserID != "" || a2.ExpiresInMS == 0 {
			t.Errorf("answer %+v", a2)
		}
		_, err = k.Authenticate(ctx, lost.AccessToken)
		wants(t, "the pair whose answer was lost", err, 401, matrix.CodeUnknownToken)
		by := k.caller(a2.AccessToken)
		if by.DeviceID != a1.DeviceID {
			t.Errorf("device %s became %s", a1.DeviceID, by.DeviceID)
		}
		// By the new refresh token instead of the access token.
		a3, err := k.Refresh(ctx, from("192.0.2.1"), a2.RefreshToken)
		must(t, err)
		k.caller(a2.AccessToken) // stands until what follows it is used
		a4, err := k.Refresh(ctx, from("192.0.2.1"), a3.RefreshToken)
		must(t, err)
		_, err = k.Authenticate(ctx, a2.AccessToken)
		wants(t, "two generations back", err, 401, matrix.CodeUnknownToken)
		k.caller(a3.AccessToken)
		k.caller(a4.AccessToken)
		_, err = k.Authenticate(ctx, a3.AccessToken)
		wants(t, "one generation back, after the next was used", err, 401, matrix.CodeUnknownToken)
		k.caller(a4.AccessToken)
	})
}

func TestC169_RefreshTokenReuse(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna})
		open := func() *LoginAnswer {
			_, a := k.login(anna, func(r *LoginRequest) { r.RefreshToken = true })
			return a
		}
		refresh := func(token string) (*LoginAnswer, error) { return k.Refresh(ctx, from("192.0.2.1"), token) }
		dead := func(what string, tokens ...*LoginAnswer) {
			t.Helper()
			for _, a := range tokens {
				_, err := k.Authenticate(ctx, a.AccessToken)
				wants(t, what, err, 401, matrix.CodeUnknownToken)
				_, err = refresh(a.RefreshToken)
				wants(t, what, err, 401, matrix.CodeUnknownToken)
			}
		}
		// A spent token is used once more, by a thief or by the one who was robbed.
		a, other := open(), open()
		b, err := refresh(a.RefreshToken)
		must(t, err)
		k.caller(b.AccessToken)
		k.heard()
		_, err = refresh(a.RefreshToken)
		wants(t, "reuse", err, 401, matrix.CodeUnknownToken)
		dead("after reuse", a, b)
		if !contains(k.heard(), "session "+string(anna)) {
			t.Error("other nodes do not hear of it")
		}
		k.caller(other.AccessToken) // another device goes on
		// Two clients race with one token, and both use what they got.
		a = open()
		first, err := refresh(a.RefreshToken)
		must(t, err)
		second, err := refresh(a.RefreshToken)
		must(t, err)
		k.caller(second.AccessToken)
		_, err = refresh(first.RefreshToken)
		wants(t, "the loser of the race", err, 401, matrix.CodeUnknownToken)
		dead("after the race", a, first, second)
		// At the very same time.
		a = open()
		var wg sync.WaitGroup
		got := make([]*LoginAnswer, 8)
		for i := range got {
			wg.Go(func() { got[i], _ = refresh(a.RefreshToken) })
		}
		wg.Wait()
		standing := 0
		for _, g := range got {
			if g == nil {
				continue
			}
			if _, err := k.Authenticate(ctx, g.AccessToken); err == nil {
				standing++
			}
		}
		if standing != 1 {
			t.Errorf("%d of 8 sessions stand, want 1", standing)
		}
	})
}

func TestParties_AreReadOnceAndForgottenInTime(t *testing.T) {
	files := map[string]string{"acme.example/pools.yaml": "research:\n  groups: [rnd]\n  contact: closed\n"}
	each(t, files, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna, Pools: []string{"sales", "ops", "sales"}, Groups: []string{"rnd"}, Admin: true, Attributes: map[string]string{"dept": "x"}})
		k.add(NewUser{ID: bob})
		want := []matrix.UserID{anna, bob, "@nobody:acme.example", "@eve:elsewhere.example", "@odd id:elsewhere.example"}
		before := k.DB.Stats().Reads
		got, err := k.Parties(ctx, want)
		must(t, err)
		if n := k.DB.Stats().Reads - before; n != 1 {
			t.Errorf("%d statements for %d users", n, len(want))
		}
		if len(got) != len(want) {
			t.Fatalf("%d of %d users", len(got), len(want))
		}
		p := got[anna]
		if fmt.Sprint(p.Pools) != "[ops research sales]" || fmt.Sprint(p.Roles) != "[admin]" || !p.Local || p.Tenant != "acme.example" ||
			p.Attributes["dept"] != "x" || p.Kind != "user" || !p.Listed {
			t.Errorf("anna is %+v", p)
		}
		if e := got["@eve:elsewhere.example"]; e.Local || e.Tenant != "elsewhere.example" || e.Kind != "user" {
			t.Errorf("eve is %+v", e)
		}
		if n := got["@nobody:acme.example"]; !n.Local || len(n.Pools) != 0 {
			t.Errorf("nobody is %+v", n)
		}
		before = k.DB.Stats().Reads
		again, err := k.Party(ctx, anna)
		must(t, err)
		_, err = k.Parties(ctx, want)
		must(t, err)
		if again != p || k.DB.Stats().Reads != before {
			t.Error("what is known is read again")
		}
		by, a := k.login(anna, nil)
		k.heard()
		must(t, k.SetPools(ctx, Operator(""), anna, []string{"legal"}))
		must(t, k.SetGroups(ctx, Operator(""), anna, nil))
		if !contains(k.heard(), "party "+string(anna)) {
			t.Error("other nodes do not hear of it")
		}
		again, err = k.Party(ctx, anna)
		must(t, err)
		if fmt.Sprint(again.Pools) != "[legal]" || fmt.Sprint(by.Party.Pools) != "[ops research sales]" {
			t.Errorf("anna is in %v", again.Pools)
		}
		if by = k.caller(a.AccessToken); fmt.Sprint(by.Party.Pools) != "[legal]" {
			t.Errorf("anna's session is in %v", by.Party.Pools)
		}
		// A change of the rules makes parties anew, without a look into the database for sessions.
		must(t, k.policy.SetTenants(ctx, []string{"globex.example"}))
		before = k.DB.Stats().Reads
		if by = k.caller(a.AccessToken); by.Party.Local {
			t.Error("anna's session is judged by the old rules")
		}
		if k.DB.Stats().Reads != before {
			t.Error("sessions are read again")
		}
		if again, err = k.Party(ctx, anna); err != nil || again.Local {
			t.Errorf("anna is judged by the old rules: %v", err)
		}
	})
}

func BenchmarkAuthenticate(b *testing.B) {
	c := newSessionCache(maxSessions)
	s := &Service{Deps: Deps{Now: time.Now, Policy: &still{}}, cache: c, metrics: newMetrics(nil)}
	tok, hash, err := newToken(rand.Reader, accessPrefix)
	if err != nil {
		b.Fatal(err)
	}
	c.put(&Session{UserID: anna, hash: hash, generation: 1}, 0)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Authenticate(context.Background(), tok); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkPassword(b *testing.B) {
	h, err := newHasher(DefaultHashing(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := h.hash(context.Background(), secret); err != nil {
			b.Fatal(err)
		}
	}
}

// still is a policy that never changes.
type still struct{ policy.Engine }

func (*still) Generation() uint64 { return 1 }
