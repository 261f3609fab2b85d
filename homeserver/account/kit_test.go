package account

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
	"hansa/storage/storagetest"
)

const (
	acme   = matrix.ServerName("acme.example")
	globex = matrix.ServerName("globex.example")
	anna   = matrix.UserID("@anna:acme.example")
	bob    = matrix.UserID("@bob:acme.example")
	secret = "correct horse battery staple"
)

// asked is the real engine with a memory of what it was asked.
type asked struct {
	*policy.Engine

	mu     sync.Mutex
	inputs []*policy.Input          // guarded by mu
	refuse func(*policy.Input) bool // guarded by mu: questions that are answered with no before the engine sees them
}

func (a *asked) Decide(ctx context.Context, in *policy.Input) policy.Decision {
	a.mu.Lock()
	a.inputs = append(a.inputs, in)
	no := a.refuse != nil && a.refuse(in)
	a.mu.Unlock()
	if no {
		return policy.Decision{ID: "test", Reasons: []policy.Reason{{Code: "test", Message: "Refused by the test."}}}
	}
	return a.Engine.Decide(ctx, in)
}

func (a *asked) points() []policy.Point {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []policy.Point
	for _, in := range a.inputs {
		out = append(out, in.Point)
	}
	a.inputs = nil
	return out
}

// kit is a service on a real database with a clock that stands still until it is moved.
type kit struct {
	*Service
	t       *testing.T
	policy  *asked
	tenants map[matrix.ServerName]Tenant
	url     string

	mu      sync.Mutex
	at      time.Time       // guarded by mu
	notices []storage.Entry // guarded by mu
	told    []string        // guarded by mu: what hooks were called with
}

func (k *kit) clock() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.at
}

func (k *kit) pass(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.at = k.at.Add(d)
}

func (k *kit) tell(what ...any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.told = append(k.told, fmt.Sprint(what...))
}

// hooked returns what hooks were called with since the last call.
func (k *kit) hooked() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := fmt.Sprint(k.told)
	k.told = nil
	return out
}

// heard returns the names of the notices since the last call.
func (k *kit) heard() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []string
	for _, e := range k.notices {
		switch e.Kind {
		case storage.KindNotice:
			out = append(out, e.Name+" "+e.Ref)
		case storage.KindDeviceList:
			out = append(out, "devices "+string(e.UserID))
		}
	}
	k.notices = nil
	return out
}

// each runs a test on both databases. files are written into the policy directory; change may alter the dependencies.
func each(t *testing.T, files map[string]string, change func(*kit, *Deps), fn func(t *testing.T, k *kit)) {
	t.Helper()
	t.Parallel()
	for _, name := range storagetest.Databases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fn(t, newKit(t, storagetest.URL(t, name), files, change))
		})
	}
}

func engineOptions() policy.Options {
	at := time.UnixMilli(1_800_000_000_000)
	return policy.Options{Tenants: []string{string(acme), string(globex), "closed.example"}, Now: func() time.Time { return at },
		Deadline: time.Minute}
}

// plainEngine is the engine without any rules but the library's, for all tests that need no more.
var plainEngine = sync.OnceValue(func() *policy.Engine {
	e, err := policy.New(engineOptions())
	if err != nil {
		panic(err)
	}
	return e
})

func newEngine(t *testing.T, files map[string]string) *policy.Engine {
	t.Helper()
	o := engineOptions()
	o.Bundles = []string{t.TempDir()}
	for name, text := range files {
		p := filepath.Join(o.Bundles[0], name)
		must(t, os.MkdirAll(filepath.Dir(p), 0o755))
		must(t, os.WriteFile(p, []byte(text), 0o644))
	}
	e, err := policy.New(o)
	must(t, err)
	return e
}

func newKit(t *testing.T, url string, files map[string]string, change func(*kit, *Deps)) *kit {
	t.Helper()
	k := &kit{t: t, url: url, at: time.UnixMilli(1_800_000_000_000), tenants: map[matrix.ServerName]Tenant{
		acme:             {Name: acme, Registration: RegistrationOpen, SharedSecret: []byte("shared")},
		globex:           {Name: globex, Registration: RegistrationToken, RegistrationTokens: []string{"from-a-file"}},
		"closed.example": {Name: "closed.example", Registration: RegistrationClosed}}}
	if len(files) == 0 {
		k.policy = &asked{Engine: plainEngine()}
	} else {
		k.policy = &asked{Engine: newEngine(t, files)}
	}
	db := storagetest.Open(t, storage.Options{URL: url, Now: k.clock, Publish: func(_, _ int64, entries []storage.Entry) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.notices = append(k.notices, entries...)
	}})
	k.Service = k.another(db, change)
	return k
}

// another makes one more service on a database, as another node would have it.
func (k *kit) another(db *storage.DB, change func(*kit, *Deps)) *Service {
	k.t.Helper()
	d := Deps{DB: db, Policy: k.policy, Log: storagetest.Quiet(), Now: k.clock, Hash: Hashing{MemoryKiB: 64, Passes: 1, Lanes: 1, Parallel: 4},
		Tenant: func(n matrix.ServerName) (Tenant, bool) { t, ok := k.tenants[n]; return t, ok }}
	if change != nil {
		change(k, &d)
	}
	s, err := New(d)
	if err != nil {
		k.t.Fatal(err)
	}
	return s
}

func (k *kit) add(n NewUser) {
	k.t.Helper()
	if n.Password == "" {
		n.Password = secret
	}
	if _, err := k.Add(context.Background(), Operator(""), n); err != nil {
		k.t.Fatalf("add %s: %v", n.ID, err)
	}
}

func from(ip string) Client { return Client{IP: netip.MustParseAddr(ip), UserAgent: "test"} }

var errNone = errors.New("no error") // so that code can say so

// login opens a session and returns it with the answer.
func (k *kit) login(user matrix.UserID, change func(*LoginRequest)) (Caller, *LoginAnswer) {
	k.t.Helper()
	r := LoginRequest{Type: StagePassword, Identifier: &Identifier{Type: "m.id.user", User: string(user)}, Password: secret}
	if change != nil {
		change(&r)
	}
	a, err := k.Login(context.Background(), acme, from("192.0.2.1"), r)
	if err != nil {
		k.t.Fatalf("log in as %s: %v", user, err)
	}
	return k.caller(a.AccessToken), a
}

func (k *kit) caller(token string) Caller {
	k.t.Helper()
	s, err := k.Authenticate(context.Background(), token)
	if err != nil {
		k.t.Fatalf("authenticate: %v", err)
	}
	return Caller{s, from("192.0.2.1")}
}

// code is the status and errcode of an error.
func code(err error) (int, string) {
	if err == nil {
		err = errNone
	}
	var e *matrix.Error
	if errors.As(err, &e) {
		return e.Status, e.Code
	}
	return 0, err.Error()
}

// wants fails unless err has a status and an errcode.
func wants(t *testing.T, what string, err error, status int, errcode string) *matrix.Error {
	t.Helper()
	s, c := code(err)
	if s != status || c != errcode {
		t.Fatalf("%s: %d %s (%v), want %d %s", what, s, c, err, status, errcode)
	}
	return asMatrix(err)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// uiaSession is the session in a 401 answer.
func uiaSession(t *testing.T, err error) string {
	t.Helper()
	e := asMatrix(err)
	if e == nil || e.Status != 401 || e.Extra["session"] == nil {
		t.Fatalf("%v is no challenge", err)
	}
	return e.Extra["session"].(string)
}

func proof(method, uri, body string) Proof { return Proof{method, uri, jsontext.Value(body)} }

func withAuth(body, auth string) string {
	if body == "{}" {
		return `{"auth":` + auth + `}`
	}
	return body[:len(body)-1] + `,"auth":` + auth + `}`
}

func passwordAuth(session, password string) string {
	return `{"type":"m.login.password","session":"` + session + `","identifier":{"type":"m.id.user","user":"anna"},"password":"` + password + `"}`
}

func contains(list []string, s string) bool { return slices.Contains(list, s) }
