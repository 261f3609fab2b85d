package fedserver

import (
	"crypto/rand"
	"strings"
	"testing"

	"hansa/matrix"
	"hansa/matrix/signing"
)

// A request that is verified gets as far as the handler, which misses a parameter.
func (k *kit) wantIn(t *testing.T, what string, status int, code string) {
	t.Helper()
	if status != 400 || code != "M_INVALID_PARAM" {
		t.Errorf("%s: %d %s, and it should have been let in", what, status, code)
	}
}

func (k *kit) wantOut(t *testing.T, what string, status int, code string) {
	t.Helper()
	if status != 401 || code != "M_UNAUTHORIZED" {
		t.Errorf("%s: %d %s, want 401 M_UNAUTHORIZED", what, status, code)
	}
}

const invite = "/_matrix/federation/v2/invite/x/$e"

func TestF83_WrongDestination(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	for _, to := range []matrix.ServerName{"other.example", "ACME.example", "acme.example:8448", partner} {
		status, code := k.ask("PUT", invite, "{}", k.sign(t, "PUT", invite, "{}", to))
		k.wantOut(t, "for "+string(to), status, code)
	}
	for _, to := range []matrix.ServerName{us, "globex.example"} {
		status, code := k.ask("PUT", invite, "{}", k.sign(t, "PUT", invite, "{}", to))
		k.wantIn(t, "for "+string(to), status, code)
	}
	// Signed for one tenant, sent to another.
	h := strings.Replace(k.sign(t, "PUT", invite, "{}", us), `destination="acme.example"`, `destination="globex.example"`, 1)
	status, code := k.ask("PUT", invite, "{}", h)
	k.wantOut(t, "with another destination than was signed", status, code)
	// Older servers leave the destination out; what they sign names it.
	h = strings.Replace(k.sign(t, "PUT", invite, "{}", us), `destination="acme.example",`, "", 1)
	status, code = k.ask("PUT", invite, "{}", h)
	k.wantIn(t, "without a destination", status, code)
}

func TestF85_SeveralHeaders(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	good := k.sign(t, "PUT", invite, "{}", us)
	other, err := signing.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := signing.SignRequest(other, "PUT", invite, partner, us, []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	status, code := k.ask("PUT", invite, "{}", wrong, good)
	k.wantIn(t, "a wrong and a right signature of one origin", status, code)
	for name, list := range map[string][]string{
		"two origins":      {good, strings.Replace(good, "partner.example", "other.example", 1)},
		"two origins back": {strings.Replace(good, "partner.example", "other.example", 1), good},
		"with a token":     {good, "Bearer abc"},
		"a token first":    {"Bearer abc", good},
		"wrong twice":      {wrong, wrong},
		"joined":           {good + ", " + good},
	} {
		status, code := k.ask("PUT", invite, "{}", list...)
		k.wantOut(t, name, status, code)
	}
}

func TestF86_HeaderGrammar(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	good := k.sign(t, "PUT", invite, "{}", us)
	for name, h := range map[string]string{
		"upper case": strings.Replace(good, "X-Matrix origin", "x-matrix ORIGIN", 1),
		"spaces":     strings.ReplaceAll(good, ",", " \t, "),
		"escaped":    strings.Replace(good, `"partner`, `"\part\ner`, 1),
		"unquoted":   strings.Replace(good, `"`+string(k.key.ID)+`"`, string(k.key.ID), 1),
		"extra":      good + `,more="x"`,
	} {
		status, code := k.ask("PUT", invite, "{}", h)
		k.wantIn(t, name, status, code)
	}
	for name, h := range map[string]string{
		"cut":        good[:len(good)-20],
		"no sig":     good[:strings.Index(good, ",sig")],
		"twice":      good + `,origin="partner.example"`,
		"long":       good + `,x="` + strings.Repeat("a", 100<<10) + `"`,
		"no quote":   good[:len(good)-1],
		"bad origin": strings.Replace(good, "partner.example", "part ner", 1),
		"policy key": strings.Replace(good, string(k.key.ID), "ed25519:policy_server", 1),
	} {
		status, code := k.ask("PUT", invite, "{}", h)
		k.wantOut(t, name, status, code)
	}
}

// What is verified are the bytes of the request target, not what they mean.
func TestF87_RawTarget(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	const base = "/_matrix/federation/v1/backfill/!r%3Aacme.example"
	for _, q := range []string{"", "?", "?limit=x&v=$a", "?v=$a&limit=x", "?limit=+1", "?limit=%201", "?v=%2f&limit=x", "?v=%2F&limit=x", "?v=a%00&limit=x", "?limit=x;&v=%zz"} {
		status, code := k.ask("GET", strings.Replace(base, "!r%3Aacme.example", "x", 1)+q, "", k.sign(t, "GET", strings.Replace(base, "!r%3Aacme.example", "x", 1)+q, "", us))
		k.wantIn(t, "query "+q, status, code)
	}
	for signed, sent := range map[string]string{
		"?a=1&b=2": "?b=2&a=1", "?a=+": "?a=%20", "?a=%2f": "?a=%2F", "": "?", "?a": "?a=",
	} {
		status, code := k.ask("GET", base+sent, "", k.sign(t, "GET", base+signed, "", us))
		k.wantOut(t, signed+" sent as "+sent, status, code)
	}
	status, code := k.ask("GET", "/_matrix/federation/v1/backfill/!r:acme.example", "", k.sign(t, "GET", base, "", us))
	k.wantOut(t, "another spelling of the path", status, code)
	status, code = k.ask("PUT", invite, `{"a":1}`, k.sign(t, "PUT", invite, `{"a":2}`, us))
	k.wantOut(t, "another body", status, code)
	status, code = k.ask("PUT", invite, "{}", k.sign(t, "POST", invite, "{}", us))
	k.wantOut(t, "another method", status, code)
	status, code = k.ask("PUT", invite, ` { "b" : 1, "a" :2}`, k.sign(t, "PUT", invite, `{"a":2,"b":1}`, us))
	k.wantIn(t, "the same body in another form", status, code)
}

// Only keys that are valid now count; the keyring tells. An origin with none is refused like one whose signature is wrong.
func TestF89_KeysThatAreNotValid(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	old, err := signing.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	h, err := signing.SignRequest(old, "PUT", invite, partner, us, []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	status, code := k.ask("PUT", invite, "{}", h)
	k.wantOut(t, "an old key", status, code)
	// The same key ID with other bytes.
	h, err = signing.SignRequest(signing.Key{ID: k.key.ID, Private: old.Private}, "PUT", invite, partner, us, []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	status, code = k.ask("PUT", invite, "{}", h)
	k.wantOut(t, "another key of the same ID", status, code)
}

// The door is asked before keys are looked up and before the body is read, and a tenant's name is nobody's else.
func TestR333_TheDoorComesFirst(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	for _, e := range k.Table() {
		if e.Open {
			continue
		}
		h, err := signing.SignRequest(k.key, e.Method, fill(e.Path), denied, us, []byte("{}"))
		if err != nil {
			t.Fatal(err)
		}
		if status, code := k.ask(e.Method, fill(e.Path), "not json", h); status != 403 || code != "M_FORBIDDEN" {
			t.Errorf("%s %s of a server that is no partner: %d %s", e.Method, e.Path, status, code)
		}
	}
	if len(k.lookups) > 0 {
		t.Errorf("keys of %v were looked up", k.lookups)
	}
	asked := len(k.asked)
	h, err := signing.SignRequest(k.key, "PUT", invite, "globex.example", us, []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	status, code := k.ask("PUT", invite, "{}", h)
	k.wantOut(t, "from another tenant over HTTP", status, code)
	if len(k.asked) != asked || len(k.lookups) > 0 {
		t.Error("the door or the keyring were asked about a tenant")
	}
}

// Bodies have limits, and are JSON, once and unambiguous, before anything else looks at them.
func TestRequest_Bodies(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	big := `{"a":"` + strings.Repeat("x", defaultBodyLimit) + `"}`
	const leave = "/_matrix/federation/v2/send_leave/!r:acme.example/$e"
	if status, code := k.ask("PUT", leave, big, k.sign(t, "PUT", leave, big, us)); status != 413 || code != "M_TOO_LARGE" {
		t.Errorf("a large body: %d %s", status, code)
	}
	good := k.sign(t, "PUT", leave, "{}", us)
	for _, body := range []string{`{"a":1,"a":2}`, `{`, `[]x`, "\xff", `{"a":"\ud800"}`, strings.Repeat("[", 5000) + strings.Repeat("]", 5000)} {
		if status, _ := k.ask("PUT", leave, body, good); status != 400 && status != 401 {
			t.Errorf("the body %.20q: %d", body, status)
		}
	}
	if k.bodies.free != bodiesTotal || len(k.bodies.used) != 0 {
		t.Errorf("%d bytes of bodies were not given back", bodiesTotal-k.bodies.free)
	}
}

func TestAuthenticate_ManyWrongSignatures(t *testing.T) {
	t.Parallel()
	k := newKit(t)
	other, err := signing.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	bad, err := signing.SignRequest(other, "PUT", invite, partner, us, []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	last := 0
	for range wrongBurst + 5 {
		last, _ = k.ask("PUT", invite, "{}", bad)
	}
	if last != 429 {
		t.Errorf("after %d wrong signatures: %d", wrongBurst, last)
	}
}

// FuzzAuthorization looks for headers that break the parser, or that get in without a signature.
func FuzzAuthorization(f *testing.F) {
	k := newKit(f)
	f.Add(k.sign(f, "PUT", invite, "{}", us), "")
	f.Add(`X-Matrix origin="partner.example",key="ed25519:a",sig="AAAA"`, "Bearer x")
	f.Fuzz(func(t *testing.T, a, b string) {
		list := []string{a}
		if b != "" {
			list = append(list, b)
		}
		status, _ := k.ask("PUT", "/_matrix/federation/v2/send_leave/!r:acme.example/$e", "{}", list...)
		if status != 401 && status != 403 && status != 429 {
			t.Errorf("%q: %d", list, status)
		}
	})
}
