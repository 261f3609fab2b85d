package api

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hansa/homeserver/account"
	"hansa/matrix"
	"hansa/test/hstest"
)

// login is the body of a login.
func login(user, password string, more ...string) []byte {
	return []byte(fmt.Sprintf(`{"type":"m.login.password","identifier":{"type":"m.id.user","user":%q},"password":%q%s}`, user, password, strings.Join(more, "")))
}

// Passwords count whole, up to 512 bytes, and longer ones are not even hashed.
func TestC159_LongPasswords(t *testing.T) {
	t.Parallel()
	s := hstest.New(t, hstest.Options{})
	long := strings.Repeat("p", 72)
	if _, err := s.Accounts.Add(t.Context(), account.Operator("test"), account.NewUser{ID: "@anna:acme.example", Password: long + "1"}); err != nil {
		t.Fatal(err)
	}
	try := func(p string) hstest.Answer { return s.Do("POST", "/login", "", login("anna", p)) }
	if a := try(long + "1"); a.Status != 200 {
		t.Fatalf("the right password: %d %s", a.Status, a.Raw)
	}
	wants(t, "equal in the first 72 bytes", try(long+"2"), 403, "M_FORBIDDEN")
	wants(t, "cut after 72 bytes", try(long), 403, "M_FORBIDDEN")
	wants(t, "512 bytes", try(strings.Repeat("p", 512)), 403, "M_FORBIDDEN")
	wants(t, "513 bytes", try(strings.Repeat("p", 513)), 400, "M_INVALID_PARAM")
	begin := time.Now()
	for range 20 {
		wants(t, "60 KB", try(strings.Repeat("p", 60_000)), 400, "M_INVALID_PARAM")
		wants(t, "1 MB", try(strings.Repeat("p", 1<<20)), 413, "M_TOO_LARGE")
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("40 long passwords took %v", took)
	}
	wants(t, "registration with 513 bytes", s.Do("POST", "/register", "", []byte(`{"username":"zoe","password":"`+strings.Repeat("p", 513)+`","auth":{"type":"m.login.dummy"}}`)), 400, "M_INVALID_PARAM")
}

// A password on its way is nowhere on the disk.
func TestC161_NoPasswordOnDisk(t *testing.T) {
	t.Parallel()
	s := hstest.New(t, hstest.Options{})
	anna := s.User("anna")
	const next = "the-next-password-of-anna-7"
	if a := anna.Try("POST", "/account/password", []byte(`{"new_password":"`+next+`"}`)); a.Status != 401 || a.String("session") == "" {
		t.Fatalf("password change without proof: %d %s", a.Status, a.Raw)
	}
	if a := s.Do("POST", "/register", "", []byte(`{"username":"zoe","password":"`+next+`"}`)); a.Status != 401 {
		t.Fatalf("registration without proof: %d %s", a.Status, a.Raw)
	}
	s.Do("POST", "/login", "", login("anna", next))
	s.Stop()
	found := 0
	err := filepath.WalkDir(s.Dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		found++
		for _, secret := range []string{next, hstest.Password, anna.Token} {
			if bytes.Contains(b, []byte(secret)) {
				t.Errorf("%s holds a secret in clear", d.Name())
			}
		}
		return nil
	})
	if err != nil || found == 0 {
		t.Errorf("%d files were looked at, %v", found, err)
	}
}

// A proof is good for one user, one request and one time.
func TestC162_UIABinding(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		anna, ben := s.User("anna"), s.User("ben")
		victim := &hstest.User{S: s, ID: anna.ID}
		victim.Login("VICTIM")
		const body = `"devices":["VICTIM"]`
		begin := func() string {
			a := anna.Try("POST", "/delete_devices", []byte(`{`+body+`}`))
			if a.Status != 401 || a.String("session") == "" || a.Get("flows") == nil {
				t.Fatalf("without proof: %d %s", a.Status, a.Raw)
			}
			return a.String("session")
		}
		finish := func(u *hstest.User, method, path, body, session, user, password string) hstest.Answer {
			return u.Try(method, path, []byte(fmt.Sprintf(`{%s,"auth":{"type":"m.login.password","session":%q,"identifier":{"type":"m.id.user","user":%q},"password":%q}}`, body, session, user, password)))
		}
		id := begin()
		for what, a := range map[string]hstest.Answer{
			"another user":         finish(ben, "POST", "/delete_devices", body, id, "anna", hstest.Password),
			"another path":         finish(anna, "POST", "/account/deactivate", body, id, "anna", hstest.Password),
			"another method":       finish(anna, "DELETE", "/devices/VICTIM", body, id, "anna", hstest.Password),
			"another body":         finish(anna, "POST", "/delete_devices", `"devices":["VICTIM","OTHER"]`, id, "anna", hstest.Password),
			"as somebody else":     finish(anna, "POST", "/delete_devices", body, id, "ben", hstest.Password),
			"a wrong password":     finish(anna, "POST", "/delete_devices", body, id, "anna", "wrong"),
			"a session of nobody":  finish(anna, "POST", "/delete_devices", body, "nosuchsession", "anna", hstest.Password),
			"a stage not asked":    anna.Try("POST", "/delete_devices", []byte(`{`+body+`,"auth":{"type":"m.login.dummy","session":"`+id+`"}}`)),
			"a stage of the token": anna.Try("POST", "/delete_devices", []byte(`{`+body+`,"auth":{"type":"m.login.token","session":"`+id+`","token":"x"}}`)),
			"nothing but session":  anna.Try("POST", "/delete_devices", []byte(`{`+body+`,"auth":{"session":"`+id+`"}}`)),
		} {
			if a.Status != 401 && a.Status != 403 {
				t.Errorf("%s: %d %s, want 401 or 403", what, a.Status, a.Raw)
			}
		}
		victim.Must("GET", "/account/whoami", nil)
		if a := finish(anna, "POST", "/delete_devices", body, id, "anna", hstest.Password); a.Status != 200 {
			t.Fatalf("the right proof: %d %s", a.Status, a.Raw)
		}
		wants(t, "the device that was deleted", victim.Try("GET", "/account/whoami", nil), 401, "M_UNKNOWN_TOKEN")
		victim.Login("VICTIM")
		if a := finish(anna, "POST", "/delete_devices", body, id, "anna", hstest.Password); a.Status != 401 {
			t.Errorf("the same proof again: %d %s", a.Status, a.Raw)
		}
		victim.Must("GET", "/account/whoami", nil)
		for _, bad := range []string{`null`, `7`, `[]`, `{"type":7}`, `{"session":{}}`, `{"type":"m.login.password","identifier":7,"password":"x"}`} {
			if a := anna.Try("POST", "/delete_devices", []byte(`{`+body+`,"auth":`+bad+`}`)); a.Status != 400 && a.Status != 401 {
				t.Errorf("auth %s: %d %s", bad, a.Status, a.Raw)
			}
		}
		victim.Must("GET", "/account/whoami", nil)
	})
}

// An account without a password has no password that opens it.
func TestC163_NoPasswordNoWayIn(t *testing.T) {
	t.Parallel()
	s := hstest.New(t, hstest.Options{})
	if _, err := s.Accounts.Add(t.Context(), account.Operator("test"), account.NewUser{ID: "@zoe:acme.example"}); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"", " ", "*", "!", "x", "null", "\\u0000", "nobody has this password", "$argon2id$v=19$m=64,t=1,p=1$$"} {
		a := s.Do("POST", "/login", "", []byte(`{"type":"m.login.password","user":"zoe","password":"`+p+`"}`))
		if a.Status != 403 && a.Status != 400 && a.Status != 401 || a.String("access_token") != "" {
			t.Errorf("login with %q: %d %s", p, a.Status, a.Raw)
		}
	}
	for _, body := range []string{`{"type":"m.login.password","user":"zoe"}`, `{"type":"m.login.password","user":"zoe","password":null}`, `{"type":"m.login.token","token":"x"}`, `{"type":"m.login.sso"}`, `{"type":"m.login.dummy","user":"zoe"}`,
		`{"type":"m.login.application_service","identifier":{"type":"m.id.user","user":"zoe"}}`, `{"type":"com.example","user":"zoe"}`, `{"type":"m.login.password","identifier":{"type":"m.id.thirdparty","medium":"email","address":"zoe@acme.example"},"password":"x"}`} {
		if a := s.Do("POST", "/login", "", []byte(body)); a.Status < 400 || a.Status >= 500 || a.String("access_token") != "" {
			t.Errorf("%s: %d %s", body, a.Status, a.Raw)
		}
	}
}

// Who is locked can do nothing but log out; who is suspended can look and leave.
func TestC165_LockedAndSuspended(t *testing.T) {
	t.Parallel()
	c := newScene(t, hstest.Options{})
	lock := func(on bool) {
		if err := c.Accounts.Lock(t.Context(), account.Operator("test"), c.ben.ID, on); err != nil {
			t.Fatal(err)
		}
	}
	suspend := func(on bool) {
		if err := c.Accounts.Suspend(t.Context(), account.Operator("test"), c.ben.ID, on); err != nil {
			t.Fatal(err)
		}
	}
	me := hstest.Esc(string(c.ben.ID))
	reads := []string{"/sync?timeout=0", "/account/whoami", at(c.room) + "/messages?dir=b", at(c.room) + "/state", at(c.room) + "/members", "/joined_rooms", "/devices", "/profile/" + me, "/pushrules/", "/publicRooms"}
	writes := map[string]string{"PUT " + at(c.room) + "/send/m.room.message/1": `{"msgtype":"m.text","body":"x"}`, "PUT " + at(c.room) + "/state/m.room.member/" + me: `{"membership":"join","displayname":"x"}`,
		"POST /createRoom": `{}`, "POST /join/" + hstest.Esc(c.room): `{}`, "POST " + at(c.room) + "/invite": `{"user_id":"@x:acme.example"}`, "PUT /profile/" + me + "/displayname": `{"displayname":"x"}`,
		"PUT " + at(c.room) + "/typing/" + me: `{"typing":true}`, "PUT /presence/" + me + "/status": `{"presence":"online"}`}
	lock(true)
	for _, path := range reads {
		a := c.ben.Try("GET", path, nil)
		if wants(t, "locked: "+path, a, 401, "M_USER_LOCKED"); a.Get("soft_logout") != true {
			t.Errorf("locked: %s: %s, want soft_logout", path, a.Raw)
		}
	}
	for line, body := range writes {
		method, path, _ := strings.Cut(line, " ")
		wants(t, "locked: "+line, c.ben.Try(method, path, []byte(body)), 401, "M_USER_LOCKED")
	}
	wants(t, "login while locked", c.Do("POST", "/login", "", login("ben", hstest.Password)), 401, "M_USER_LOCKED")
	lock(false)
	c.ben.Must("GET", "/account/whoami", nil)
	suspend(true)
	before := len(events(c.Server, c.room))
	for _, path := range reads {
		c.ben.Must("GET", path, nil)
	}
	for line, body := range writes {
		method, path, _ := strings.Cut(line, " ")
		wants(t, "suspended: "+line, c.ben.Try(method, path, []byte(body)), 403, "M_USER_SUSPENDED")
	}
	if n := len(events(c.Server, c.room)); n != before {
		t.Errorf("%d events of somebody suspended", n-before)
	}
	c.ben.Must("POST", at(c.room)+"/leave", []byte(`{}`))
	suspend(false)
	c.ben.Join(c.room)
	lock(true)
	c.ben.Must("POST", "/logout", nil)
	lock(false)
	wants(t, "after the logout", c.ben.Try("GET", "/account/whoami", nil), 401, "M_UNKNOWN_TOKEN")
}

// A token counts as it was given out, in the Authorization header, and nowhere else.
func TestC167_TokenForms(t *testing.T) {
	t.Parallel()
	s := hstest.New(t, hstest.Options{})
	anna := s.User("anna")
	tok := anna.Token
	who := func(header ...string) hstest.Answer { return from(t, s, "GET", "/account/whoami", "", header...) }
	for what, a := range map[string]hstest.Answer{
		"no header":       who(),
		"empty header":    who("Authorization", ""),
		"no token":        who("Authorization", "Bearer"),
		"another scheme":  who("Authorization", "Basic "+tok),
		"no scheme":       who("Authorization", tok),
		"two headers":     who("Authorization", "Bearer "+tok, "Authorization", "Bearer x"),
		"in the query":    from(t, s, "GET", "/account/whoami?access_token="+tok, ""),
		"in a cookie":     who("Cookie", "access_token="+tok),
		"in another name": who("X-Access-Token", tok),
	} {
		if a.Status != 401 || a.Code() != "M_MISSING_TOKEN" && a.Code() != "M_UNKNOWN_TOKEN" {
			t.Errorf("%s: %d %s, want 401", what, a.Status, a.Raw)
		}
	}
	wants(t, "no header", who(), 401, "M_MISSING_TOKEN")
	wants(t, "in the query", from(t, s, "GET", "/account/whoami?access_token="+tok, ""), 401, "M_MISSING_TOKEN")
	for _, bad := range []string{tok[:len(tok)-1], tok[1:], tok + "=", tok + "x", "mst_" + tok[4:], "syt_x_y_z", strings.ToUpper(tok), tok + tok, strings.Repeat("x", 20_000), "'--", "../../x", tok[:10] + " " + tok[10:]} {
		a := who("Authorization", "Bearer "+bad)
		if wants(t, fmt.Sprintf("%.40q", bad), a, 401, "M_UNKNOWN_TOKEN"); strings.Contains(string(a.Raw), tok[6:30]) {
			t.Errorf("the answer repeats the token: %s", a.Raw)
		}
	}
	if a := who("Authorization", "bearer "+tok); a.Status != 200 {
		t.Errorf("the scheme in small letters: %d %s", a.Status, a.Raw)
	}
	anna.Must("POST", "/logout", nil)
	wants(t, "after logout", anna.Try("GET", "/account/whoami", nil), 401, "M_UNKNOWN_TOKEN")
}

// A refresh token that was spent ends the whole family when it comes again.
func TestC169_RefreshTokenReuse(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		s.User("anna")
		refresh := func(token string) hstest.Answer {
			return s.Do("POST", "/refresh", "", map[string]string{"refresh_token": token})
		}
		whoami := func(token string) hstest.Answer { return s.Do("GET", "/account/whoami", token, nil) }
		first := s.Do("POST", "/login", "", login("anna", hstest.Password, `,"refresh_token":true`))
		if first.String("refresh_token") == "" || first.Get("expires_in_ms") == nil {
			t.Fatalf("login: %s", first.Raw)
		}
		second := refresh(first.String("refresh_token"))
		lost := second // the answer may be lost: the same token gives another pair until the new one is used
		again := refresh(first.String("refresh_token"))
		for _, a := range []hstest.Answer{second, again} {
			if a.Status != 200 {
				t.Fatalf("refresh: %d %s", a.Status, a.Raw)
			}
		}
		if a := whoami(again.String("access_token")); a.Status != 200 {
			t.Fatalf("the new token: %d %s", a.Status, a.Raw)
		}
		a := refresh(first.String("refresh_token"))
		wants(t, "a spent token", a, 401, "M_UNKNOWN_TOKEN")
		for what, a := range map[string]hstest.Answer{"the first": first, "the lost one": lost, "the one in use": again} {
			wants(t, "access of "+what, whoami(a.String("access_token")), 401, "M_UNKNOWN_TOKEN")
			wants(t, "refresh of "+what, refresh(a.String("refresh_token")), 401, "M_UNKNOWN_TOKEN")
		}
		for _, bad := range []string{"x", strings.Repeat("x", 10_000), first.String("access_token")} {
			wants(t, "refresh with "+bad[:1], refresh(bad), 401, "M_UNKNOWN_TOKEN")
		}
		wants(t, "no token", s.Do("POST", "/refresh", "", []byte(`{}`)), 400, "M_MISSING_PARAM")
		wants(t, "a number", s.Do("POST", "/refresh", "", []byte(`{"refresh_token":7}`)), 400, "M_BAD_JSON")
		// Many at the very same time: whatever wins, no two families live on after one of them was used.
		third := s.Do("POST", "/login", "", login("anna", hstest.Password, `,"refresh_token":true`))
		var wg sync.WaitGroup
		answers := make([]hstest.Answer, 6)
		for i := range answers {
			wg.Go(func() { answers[i] = refresh(third.String("refresh_token")) })
		}
		wg.Wait()
		alive := 0
		for _, a := range answers {
			if a.Status == 200 && whoami(a.String("access_token")).Status == 200 {
				alive++
			}
		}
		if alive > 1 {
			t.Errorf("%d sessions came of one refresh token", alive)
		}
	})
}

// localpart is what the server calls a registered user.
func localpart(a hstest.Answer) string { return matrix.UserID(a.String("user_id")).Localpart() }
