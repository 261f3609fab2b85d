package account

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

func TestLogin_OpensASession(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna})
		k.add(NewUser{ID: "@gus:globex.example"})
		k.policy.points()
		k.heard()
		by, a := k.login(anna, func(r *LoginRequest) { r.InitialDeviceDisplayName = "phone" })
		if a.UserID != anna || len(a.DeviceID) != 10 || a.RefreshToken != "" || a.ExpiresInMS != 0 || a.HomeServer != acme {
			t.Errorf("answer = %+v", a)
		}
		if by.UserID != anna || by.DeviceID != a.DeviceID || by.Tenant != acme || by.Party.ID != string(anna) || by.Party.Device.ID != string(a.DeviceID) {
			t.Errorf("session = %+v", by.Session)
		}
		if got := k.policy.points(); len(got) != 1 || got[0] != policy.AccountLogin {
			t.Errorf("asked %v, want account.login once", got)
		}
		if got := k.heard(); len(got) != 1 || got[0] != "devices "+string(anna) {
			t.Errorf("heard %v, want a new device", got)
		}
		for _, name := range []string{"anna", "Anna", "@anna", "@anna:acme.example", "@anna:ACME.example"} {
			if b, _ := k.login("", func(r *LoginRequest) { r.Identifier.User = name }); b.UserID != anna {
				t.Errorf("%q logs in as %s", name, b.UserID)
			}
			if b, _ := k.login("", func(r *LoginRequest) { r.Identifier, r.User = nil, name }); b.UserID != anna {
				t.Errorf("old form %q logs in as %s", name, b.UserID)
			}
		}
		if b, _ := k.login("@gus:globex.example", nil); b.Tenant != globex {
			t.Errorf("the tenant of a full ID is %s", b.Tenant)
		}
		for what, change := range map[string]func(*LoginRequest){
			"wrong password": func(r *LoginRequest) { r.Password += "x" },
			"unknown user":   func(r *LoginRequest) { r.Identifier.User = "nobody" },
			"other server":   func(r *LoginRequest) { r.Identifier.User = "@anna:elsewhere.example" },
			"other tenant":   func(r *LoginRequest) { r.Identifier.User = "@anna:globex.example" },
			"third party": func(r *LoginRequest) {
				r.Identifier = &Identifier{Type: "m.id.thirdparty", Medium: "email", Address: "a@b"}
			},
			"old third party":  func(r *LoginRequest) { r.Identifier, r.Medium, r.Address = nil, "email", "a@b" },
			"long name":        func(r *LoginRequest) { r.Identifier.User = strings.Repeat("a", 300) },
			"kelvin sign":      func(r *LoginRequest) { r.Identifier.User = "\u212aarl" },
			"user with a NUL":  func(r *LoginRequest) { r.Identifier.User = "anna\x00" },
			"fullwidth letter": func(r *LoginRequest) { r.Identifier.User = "ａnna" },
		} {
			r := LoginRequest{Type: StagePassword, Identifier: &Identifier{Type: "m.id.user", User: "anna"}, Password: secret}
			change(&r)
			_, err := k.Login(ctx, acme, from("192.0.2.1"), r)
			wants(t, what, err, 403, matrix.CodeForbidden)
		}
		for what, r := range map[string]LoginRequest{
			"type":       {Type: "m.login.token"},
			"identifier": {Type: StagePassword, Identifier: &Identifier{Type: "m.id.strange", User: "anna"}},
		} {
			_, err := k.Login(ctx, acme, from("192.0.2.1"), r)
			wants(t, what, err, 400, matrix.CodeUnknown)
		}
		_, err := k.Login(ctx, acme, from("192.0.2.1"), LoginRequest{Type: StagePassword})
		wants(t, "no identifier", err, 400, matrix.CodeMissingParam)
	})
}

func TestLogin_PolicyRefuses(t *testing.T) {
	each(t, map[string]string{"acme.example/whitelist.yaml": "whitelist:\n  enabled: true\n  users: [\"@bob:acme.example\"]\n"}, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna})
		k.add(NewUser{ID: bob})
		k.add(NewUser{ID: "@carl:acme.example", Listed: true})
		k.login(bob, nil)
		k.login("@carl:acme.example", nil)
		_, err := k.Login(ctx, acme, from("192.0.2.1"), LoginRequest{Type: StagePassword, User: "anna", Password: secret})
		if e := wants(t, "not listed", err, 403, matrix.CodeForbidden); e.Extra["org.hansa.decision_id"] == "" {
			t.Error("no decision id")
		}
		_, err = k.Login(ctx, acme, from("192.0.2.1"), LoginRequest{Type: StagePassword, User: "anna", Password: "wrong"})
		if e := wants(t, "wrong password", err, 403, matrix.CodeForbidden); e.Extra != nil {
			t.Error("a wrong password learns what the policy says")
		}
	})
}

func TestC157_BruteForce(t *testing.T) {
	each(t, nil, func(k *kit, d *Deps) { d.Limits.Enabled = true }, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna})
		try := func(user, ip, password string) error {
			_, err := k.Login(ctx, acme, from(ip), LoginRequest{Type: StagePassword, User: user, Password: password})
			return err
		}
		must(t, try("anna", "198.51.100.7", secret)) // the owner's address is known now
		limited := func(n int, one func(i int) error) int {
			t.Helper()
			refused := 0
			for i := range n {
				switch s, c := code(one(i)); {
				case s == 429 && c == matrix.CodeLimitExceeded:
					refused++
				case s != 403:
					t.Fatalf("try %d: %d %s", i, s, c)
				}
			}
			return refused
		}
		n := limited(1000, func(i int) error { return try("anna", fmt.Sprintf("10.1.%d.%d", i/250, i%250+1), "wrong") })
		if n < 980 {
			t.Errorf("%d of 1000 tries on one account were refused", n)
		}
		err := try("anna", "10.9.9.9", secret)
		if e := wants(t, "stranger while under attack", err, 429, matrix.CodeLimitExceeded); e.Extra["retry_after_ms"].(int64) <= 0 {
			t.Error("no time to wait")
		}
		must(t, try("anna", "198.51.100.7", secret)) // the owner is not locked out
		if n := limited(1000, func(i int) error { return try(fmt.Sprintf("user%d", i), "203.0.113.5", "wrong") }); n < 900 {
			t.Errorf("%d of 1000 tries from one address were refused", n)
		}
		if n := limited(1000, func(i int) error {
			return try(fmt.Sprintf("other%d", i), fmt.Sprintf("2001:db8:1:2::%x", i+1), "wrong")
		}); n < 700 {
			t.Errorf("%d of 1000 tries from one /64 were refused", n)
		}
		k.pass(time.Hour)
		must(t, try("anna", "10.9.9.9", secret))
	})
}

func TestC157_NetworksOfAddresses(t *testing.T) {
	t.Parallel()
	for ip, want := range map[string]string{"192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7": "192.0.2.7", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
		"fe80::1%eth0": "fe80::/64"} {
		if got := networkOf(netip.MustParseAddr(ip)); got != want {
			t.Errorf("network of %s = %s, want %s", ip, got, want)
		}
	}
}

func TestC159_LongPasswords(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		long := strings.Repeat("p", 72)
		k.add(NewUser{ID: anna, Password: long + "1"})
		login := func(p string) error {
			_, err := k.Login(ctx, acme, from("192.0.2.1"), LoginRequest{Type: StagePassword, User: "anna", Password: p})
			return err
		}
		must(t, login(long+"1"))
		wants(t, "equal in the first 72 bytes", login(long+"2"), 403, matrix.CodeForbidden)
		wants(t, "cut", login(long), 403, matrix.CodeForbidden)
		wants(t, "1 MB", login(strings.Repeat("p", 1<<20)), 400, matrix.CodeInvalidParam)
		wants(t, "513 bytes", login(strings.Repeat("p", 513)), 400, matrix.CodeInvalidParam)
		wants(t, "512 bytes", login(strings.Repeat("p", 512)), 403, matrix.CodeForbidden)
		_, err := k.Add(ctx, Operator(""), NewUser{ID: bob, Password: strings.Repeat("p", 513)})
		wants(t, "new password of 513 bytes", err, 400, matrix.CodeInvalidParam)
		_, err = k.Add(ctx, Operator(""), NewUser{ID: bob, Password: "short"})
		wants(t, "short password", err, 400, matrix.CodeWeakPassword)
		must(t, k.SetPassword(ctx, Operator(""), anna, strings.Repeat("ä", 256)))
		must(t, login(strings.Repeat("ä", 256)))
		wants(t, "prefix of a password with NUL", login(strings.Repeat("ä", 256)[:20]+"\x00"), 403, matrix.CodeForbidden)
	})
}

func TestC159_HashingIsCapped(t *testing.T) {
	t.Parallel()
	h, err := newHasher(Hashing{MemoryKiB: 64, Passes: 1, Lanes: 1, Parallel: 2}, zeros{})
	must(t, err)
	leave1, err := h.enter(context.Background())
	must(t, err)
	leave2, err := h.enter(context.Background())
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var waited, refused atomic.Int64
	for range maxWaiting + 10 {
		wg.Go(func() {
			_, err := h.verify(ctx, "", "x")
			if s, _ := code(err); s == 429 {
				refused.Add(1)
			} else if err == context.Canceled {
				waited.Add(1)
			}
			if refused.Load() == 10 {
				cancel()
			}
		})
	}
	wg.Wait()
	cancel()
	if waited.Load() != maxWaiting || refused.Load() != 10 {
		t.Errorf("%d waited and %d were refused, want %d and 10", waited.Load(), refused.Load(), maxWaiting)
	}
	leave1()
	leave2()
	if _, err := h.verify(context.Background(), "", "x"); err != nil {
		t.Error(err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestPassword_StoredForms(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	h, err := newHasher(Hashing{MemoryKiB: 64, Passes: 1, Lanes: 1, Parallel: 1}, zeros{})
	must(t, err)
	stored, err := h.hash(ctx, secret)
	must(t, err)
	dearer, err := newHasher(Hashing{MemoryKiB: 128, Passes: 2, Lanes: 2, Parallel: 1}, zeros{})
	must(t, err)
	if ok, err := dearer.verify(ctx, stored, secret); !ok || err != nil {
		t.Errorf("a hash of an earlier cost: %v %v", ok, err)
	}
	if ok, _ := h.verify(ctx, "", "nobody has this password"); ok {
		t.Error("an account without a password can be logged into with the password of the dummy")
	}
	for _, bad := range []string{"x", "$argon2id$v=19$m=64,t=1,p=1$AAAA$", "$argon2i$v=19$m=64,t=1,p=1$AAAA$AAAA", stored[:len(stored)-30],
		strings.Replace(stored, "m=64", "m=99999999", 1), strings.Replace(stored, "t=1", "t=0", 1), strings.Replace(stored, "v=19", "v=16", 1)} {
		if ok, err := h.verify(ctx, bad, secret); ok || err == nil {
			t.Errorf("%q is taken for a hash", bad)
		}
	}
}

func TestC163_NoPasswordNoWayIn(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna})
		by, _ := k.login(anna, nil)
		must(t, k.DB.Update(ctx, func(tx *storage.Tx) error {
			none := ""
			_, err := tx.UpdateUser(anna, storage.UserChange{Password: &none})
			return err
		}))
		for _, p := range []string{"", secret, "nobody has this password", "*", "!", "null", "\x00"} {
			_, err := k.Login(ctx, acme, from("192.0.2.1"), LoginRequest{Type: StagePassword, User: "anna", Password: p})
			wants(t, "login", err, 403, matrix.CodeForbidden)
			body := `{"devices":["X"]}`
			err = k.Confirm(ctx, by, proof("POST", "/delete_devices", body))
			id := uiaSession(t, err)
			err = k.Confirm(ctx, by, proof("POST", "/delete_devices", withAuth(body, passwordAuth(id, strings.ReplaceAll(p, "\x00", `\u0000`)))))
			wants(t, fmt.Sprintf("authentication with %q", p), err, 401, matrix.CodeForbidden)
		}
	})
}

func TestC165_LockedAndSuspended(t *testing.T) {
	each(t, nil, nil, func(t *testing.T, k *kit) {
		ctx := context.Background()
		k.add(NewUser{ID: anna})
		by, a := k.login(anna, func(r *LoginRequest) { r.RefreshToken = true })
		must(t, k.Lock(ctx, Operator("lost phone"), anna, true))
		_, err := k.Authenticate(ctx, a.AccessToken)
		if e := wants(t, "locked", err, 401, matrix.CodeUserLocked); e.Extra["soft_logout"] != true {
			t.Error("no soft logout")
		}
		_, err = k.Login(ctx, acme, from("192.0.2.1"), LoginRequest{Type: StagePassword, User: "anna", Password: secret})
		wants(t, "login while locked", err, 401, matrix.CodeUserLocked)
		_, err = k.Refresh(ctx, from("192.0.2.1"), a.RefreshToken)
		wants(t, "refresh while locked", err, 401, matrix.CodeUserLocked)
		_, err = k.Recheck(ctx, by.Session)
		wants(t, "open request", err, 401, matrix.CodeUserLocked)
		if s, err := k.AuthenticateLocked(ctx, a.AccessToken); err != nil || !s.Locked {
			t.Errorf("a locked user cannot log out: %v", err)
		}
		must(t, k.Lock(ctx, Operator(""), anna, false))
		by = k.caller(a.AccessToken) // the session stood all the time
		must(t, by.CheckWrite())
		must(t, k.Suspend(ctx, Operator(""), anna, true))
		by = k.caller(a.AccessToken)
		wants(t, "suspended", by.CheckWrite(), 403, matrix.CodeUserSuspended)
		wants(t, "profile while suspended", k.SetProfile(ctx, by, anna, "displayname", []byte(`"A"`)), 403, matrix.CodeUserSuspended)
		k.login(anna, nil) // more sessions are allowed
		must(t, k.Suspend(ctx, Operator(""), anna, false))
		must(t, k.caller(a.AccessToken).CheckWrite())
	})
}
