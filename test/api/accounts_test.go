package api

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"hansa/config"
	"hansa/test/hstest"
)

// Names are unique whatever their case, and closed means closed.
func TestC170_Registration(t *testing.T) {
	t.Parallel()
	closed := func(c *config.Config) { c.Tenants[1].Registration = config.RegistrationClosed }
	each(t, hstest.Options{Change: closed}, func(t *testing.T, s *hstest.Server) {
		register := func(name, auth string, header ...string) hstest.Answer {
			quoted, err := json.Marshal(name)
			if err != nil {
				t.Fatal(err)
			}
			return from(t, s, "POST", "/register", fmt.Sprintf(`{"username":%s,"password":%q%s}`, quoted, hstest.Password, auth), header...)
		}
		const proof = `,"auth":{"type":"m.login.dummy"}`
		first := register("Anna", proof)
		if first.Status != 200 || localpart(first) != "anna" || first.String("access_token") == "" {
			t.Fatalf("registration: %d %s", first.Status, first.Raw)
		}
		for _, name := range []string{"anna", "ANNA", "aNNa"} {
			wants(t, "again as "+name, register(name, proof), 400, "M_USER_IN_USE")
			wants(t, "is it free: "+name, s.Do("GET", "/register/available?username="+name, "", nil), 400, "M_USER_IN_USE")
		}
		for _, name := range []string{"аnna", "ａnna", "ann\u0430", "anna\u200b", "ſam", "12345", strings.Repeat("a", 256), "a b", "a:b", "anna\u0000"} {
			wants(t, "name "+name, register(name, ""), 400, "M_INVALID_USERNAME")
		}
		if a := s.Do("GET", "/account/whoami", first.String("access_token"), nil); a.String("user_id") != "@anna:acme.example" {
			t.Errorf("anna is %s", a.Raw)
		}
		if a := s.Do("POST", "/login", "", login("anna", hstest.Password)); a.Status != 200 {
			t.Errorf("anna's password was changed: %d %s", a.Status, a.Raw)
		}
		// The tenant is that of the Host; a closed one stays closed.
		req := func(method, path, body string) hstest.Answer {
			t.Helper()
			return hosted(t, s, "globex.example", method, path, body)
		}
		wants(t, "closed", req("POST", "/register", `{"username":"gus","password":"`+hstest.Password+`"`+proof+`}`), 403, "M_FORBIDDEN")
		wants(t, "closed, before any proof", req("POST", "/register", `{"username":"gus","password":"`+hstest.Password+`"}`), 403, "M_FORBIDDEN")
		wants(t, "closed, is it free", req("GET", "/register/available?username=gus", ""), 403, "M_FORBIDDEN")
		wants(t, "guest", s.Do("POST", "/register?kind=guest", "", []byte(`{}`)), 403, "M_FORBIDDEN")
		var wg sync.WaitGroup
		answers := make([]hstest.Answer, 12)
		for i := range answers {
			wg.Go(func() {
				answers[i] = register([]string{"carl", "Carl", "CARL"}[i%3], proof)
			})
		}
		wg.Wait()
		won := 0
		for _, a := range answers {
			if a.Status == 200 {
				won++
			} else if a.Status != 400 || a.Code() != "M_USER_IN_USE" {
				t.Errorf("a loser of the race: %d %s", a.Status, a.Raw)
			}
		}
		if won != 1 {
			t.Errorf("%d accounts of one name", won)
		}
	})
}

// Who knows the secret makes accounts, once for each nonce.
func TestC171_SharedSecretRegistration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "secret")
	if err := os.WriteFile(file, []byte("the-shared-secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := hstest.New(t, hstest.Options{Change: func(c *config.Config) { c.Tenants[0].RegistrationSharedSecretFile = file }})
	const path = "/_synapse/admin/v1/register"
	nonce := func() string { return s.Do("GET", path, "", nil).String("nonce") }
	mac := func(key string, parts ...string) string {
		m := hmac.New(sha1.New, []byte(key))
		m.Write([]byte(strings.Join(parts, "\x00")))
		return hex.EncodeToString(m.Sum(nil))
	}
	register := func(nonce, name, mac string, admin bool) hstest.Answer {
		return s.Do("POST", path, "", map[string]any{"nonce": nonce, "username": name, "password": hstest.Password, "mac": mac, "admin": admin})
	}
	n := nonce()
	a := register(n, "anna", mac("the-shared-secret", n, "anna", hstest.Password, "notadmin"), false)
	if a.Status != 200 || a.String("access_token") == "" {
		t.Fatalf("registration: %d %s", a.Status, a.Raw)
	}
	wants(t, "the nonce again", register(n, "ben", mac("the-shared-secret", n, "ben", hstest.Password, "notadmin"), false), 403, "M_FORBIDDEN")
	for what, c := range map[string]struct {
		mac   func(n string) string
		admin bool
	}{
		"a guessed secret":  {func(n string) string { return mac("guess", n, "ben", hstest.Password, "notadmin") }, false},
		"admin slipped in":  {func(n string) string { return mac("the-shared-secret", n, "ben", hstest.Password, "notadmin") }, true},
		"no hex":            {func(string) string { return "zz" }, false},
		"half of it":        {func(n string) string { return mac("the-shared-secret", n, "ben", hstest.Password, "notadmin")[:20] }, false},
		"the name of other": {func(n string) string { return mac("the-shared-secret", n, "carl", hstest.Password, "notadmin") }, false},
	} {
		n := nonce()
		wants(t, what, register(n, "ben", c.mac(n), c.admin), 403, "M_FORBIDDEN")
	}
	wants(t, "a made-up nonce", register("abc", "ben", mac("the-shared-secret", "abc", "ben", hstest.Password, "notadmin"), false), 403, "M_FORBIDDEN")
	wants(t, "the other tenant has none", hosted(t, s, "globex.example", "GET", path, ""), 400, "M_UNKNOWN")
	wants(t, "ben was never made", s.Do("POST", "/login", "", login("ben", hstest.Password)), 403, "M_FORBIDDEN")
}

// phone makes signed keys for a device.
type phone struct {
	u       *hstest.User
	private ed25519.PrivateKey
}

func newPhone(t testing.TB, u *hstest.User) *phone {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &phone{u, private}
}

func name(k ed25519.PrivateKey) string {
	return base64.RawStdEncoding.EncodeToString(k.Public().(ed25519.PublicKey))
}

// signed is an object whose JSON must be canonical as it stands, with a signature of the device put into it.
func (p *phone) signed(object string) string {
	signature := base64.RawStdEncoding.EncodeToString(ed25519.Sign(p.private, []byte(object)))
	return object[:len(object)-1] + `,"signatures":{"` + string(p.u.ID) + `":{"ed25519:` + p.u.DeviceID + `":"` + signature + `"}}}`
}

func (p *phone) deviceKeys() string {
	return p.signed(`{"algorithms":["m.olm.v1.curve25519-aes-sha2"],"device_id":"` + p.u.DeviceID + `","keys":{"curve25519:` + p.u.DeviceID + `":"` + name(p.private) +
		`","ed25519:` + p.u.DeviceID + `":"` + name(p.private) + `"},"user_id":"` + string(p.u.ID) + `"}`)
}

func (p *phone) oneTime(id string) string {
	return `"signed_curve25519:` + id + `":` + p.signed(`{"key":"`+base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat(id, 32))[:32])+`"}`)
}

// Keys that are not right and not one's own are refused whole.
func TestC174_KeysUploadValidation(t *testing.T) {
	t.Parallel()
	s := hstest.New(t, hstest.Options{})
	anna, ben := s.User("anna"), s.User("ben")
	p := newPhone(t, anna)
	upload := func(body string) hstest.Answer { return anna.Try("POST", "/keys/upload", []byte(body)) }
	good := p.deviceKeys()
	for what, body := range map[string]string{
		"null":             `{"device_keys":null}`,
		"a list":           `{"device_keys":[]}`,
		"empty":            `{"device_keys":{}}`,
		"another user":     `{"device_keys":` + strings.ReplaceAll(good, string(anna.ID), string(ben.ID)) + `}`,
		"another device":   `{"device_keys":` + strings.ReplaceAll(good, anna.DeviceID, ben.DeviceID) + `}`,
		"no signatures":    `{"device_keys":` + good[:strings.Index(good, `,"signatures"`)] + `}}`,
		"signed by nobody": `{"device_keys":` + strings.Replace(good, `"signatures":{"`+string(anna.ID), `"signatures":{"`+string(ben.ID), 1) + `}`,
		"nested garbage":   `{"device_keys":{"user_id":` + strings.Repeat(`{"a":`, 5000) + `1` + strings.Repeat(`}`, 5000) + `}}`,
		"one-time null":    `{"one_time_keys":null}`,
		"one-time number":  `{"one_time_keys":{"signed_curve25519:a":7}}`,
		"one-time string":  `{"one_time_keys":{"signed_curve25519:a":"x"}}`,
		"one-time no name": `{"one_time_keys":{"a":{}}}`,
		"good and bad":     `{"one_time_keys":{` + p.oneTime("a") + `,"signed_curve25519:b":{"key":"x"}}}`,
		"fallback a list":  `{"fallback_keys":[]}`,
		"body a list":      `[]`,
	} {
		if a := upload(body); a.Status != 400 || a.Code() != "M_INVALID_PARAM" && a.Code() != "M_BAD_JSON" {
			t.Errorf("%s: %d %.200s, want 400", what, a.Status, a.Raw)
		}
	}
	wants(t, "10 MB", upload(`{"device_keys":{"x":"`+strings.Repeat("x", 10<<20)+`"}}`), 413, "M_TOO_LARGE")
	if a := upload(`{}`); a.Get("one_time_key_counts", "signed_curve25519") != nil && a.Get("one_time_key_counts", "signed_curve25519") != 0.0 {
		t.Errorf("a refused upload left keys: %s", a.Raw)
	}
	query := func() string {
		return string(ben.Must("POST", "/keys/query", map[string]any{"device_keys": map[string]any{string(anna.ID): []string{}}}).Raw)
	}
	if q := query(); strings.Contains(q, "ed25519:"+anna.DeviceID) {
		t.Errorf("a refused upload left keys: %s", q)
	}
	if a := upload(`{"device_keys":` + good + `,"one_time_keys":{` + p.oneTime("a") + `}}`); a.Status != 200 || a.Get("one_time_key_counts", "signed_curve25519") != 1.0 {
		t.Errorf("good keys: %d %s", a.Status, a.Raw)
	}
	if q := query(); !strings.Contains(q, name(p.private)) {
		t.Errorf("good keys are not found: %s", q)
	}
}

// A one-time key is what it was when it came first, and there is an end to them.
func TestC175_OneTimeKeys(t *testing.T) {
	t.Parallel()
	s := hstest.New(t, hstest.Options{})
	anna := s.User("anna")
	p := newPhone(t, anna)
	upload := func(keys ...string) hstest.Answer {
		return anna.Try("POST", "/keys/upload", []byte(`{"one_time_keys":{`+strings.Join(keys, ",")+`}}`))
	}
	anna.Must("POST", "/keys/upload", []byte(`{"device_keys":`+p.deviceKeys()+`}`))
	if a := upload(p.oneTime("a")); a.Status != 200 {
		t.Fatalf("upload: %d %s", a.Status, a.Raw)
	}
	if a := upload(p.oneTime("a")); a.Status != 200 || a.Get("one_time_key_counts", "signed_curve25519") != 1.0 {
		t.Errorf("the same again: %d %s", a.Status, a.Raw)
	}
	wants(t, "other bytes", upload(strings.Replace(p.oneTime("b"), ":b\"", ":a\"", 1), p.oneTime("c")), 400, "M_INVALID_PARAM")
	if a := upload(); a.Get("one_time_key_counts", "signed_curve25519") != 1.0 {
		t.Errorf("part of a refused upload was stored: %s", a.Raw)
	}
	refused := false
	for batch := range 40 {
		var keys []string
		for i := range 250 {
			keys = append(keys, p.oneTime(fmt.Sprintf("k%d", batch*250+i)))
		}
		if a := upload(keys...); a.Status != 200 {
			if refused = true; a.Status != 400 && a.Status != 413 && a.Status != 403 {
				t.Errorf("too many keys: %d %s", a.Status, a.Raw)
			}
			break
		}
	}
	if a := upload(); !refused && a.Get("one_time_key_counts", "signed_curve25519").(float64) > 5000 {
		t.Errorf("10,000 keys are kept: %s", a.Raw)
	}
}

// Nobody gets other master keys with a stolen token alone, and those who share a room hear of new ones.
func TestC179_CrossSigningReset(t *testing.T) {
	t.Parallel()
	each(t, hstest.Options{}, func(t *testing.T, s *hstest.Server) {
		anna, ben := s.User("anna"), s.User("ben")
		room := anna.CreateRoom(map[string]any{"preset": "public_chat"})
		ben.Join(room)
		master := func() (key, body string) {
			key = name(newPhone(t, anna).private)
			return key, `"master_key":{"keys":{"ed25519:` + key + `":"` + key + `"},"usage":["master"],"user_id":"` + string(anna.ID) + `"}`
		}
		current := func() string {
			return string(ben.Must("POST", "/keys/query", map[string]any{"device_keys": map[string]any{string(anna.ID): []string{}}}).Raw)
		}
		first, body := master()
		anna.Must("POST", "/keys/device_signing/upload", []byte(`{`+body+`}`))
		anna.Must("POST", "/keys/device_signing/upload", []byte(`{`+body+`}`)) // the same again changes nothing
		ben.Sync(0)
		second, body := master()
		a := anna.Try("POST", "/keys/device_signing/upload", []byte(`{`+body+`}`))
		if a.Status != 401 || a.String("session") == "" {
			t.Fatalf("another master key without proof: %d %s", a.Status, a.Raw)
		}
		proof := func(password string) hstest.Answer {
			return anna.Try("POST", "/keys/device_signing/upload", []byte(`{`+body+`,"auth":{"type":"m.login.password","session":"`+a.String("session")+`","identifier":{"type":"m.id.user","user":"anna"},"password":"`+password+`"}}`))
		}
		if w := proof("wrong"); w.Status != 401 {
			t.Errorf("with a wrong password: %d %s", w.Status, w.Raw)
		}
		if q := current(); !strings.Contains(q, first) || strings.Contains(q, second) {
			t.Errorf("the key was replaced without proof: %s", q)
		}
		if w := proof(hstest.Password); w.Status != 200 {
			t.Fatalf("with the password: %d %s", w.Status, w.Raw)
		}
		if q := current(); strings.Contains(q, first) || !strings.Contains(q, second) {
			t.Errorf("the key was not replaced: %s", q)
		}
		ben.Until("anna's new keys", func(a hstest.Answer) bool {
			list, _ := a.Get("device_lists", "changed").([]any)
			for _, u := range list {
				if u == string(anna.ID) {
					return true
				}
			}
			return false
		})
	})
}
