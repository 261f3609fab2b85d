package clientapi_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"hansa/homeserver/account"
	"hansa/homeserver/clientapi"
	"hansa/homeserver/clientsync"
	"hansa/homeserver/directory"
	"hansa/homeserver/ephemeral"
	"hansa/homeserver/membership"
	"hansa/homeserver/room"
	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/matrix/signing"
	"hansa/policy"
	"hansa/storage"
	"hansa/storage/storagetest"
)

const (
	acme   = matrix.ServerName("acme.example")
	globex = matrix.ServerName("globex.example")
)

// friends is a policy under which acme and globex talk about everything.
func friends() map[string]string {
	return map[string]string{
		"acme.example/partners.yaml":   `partners: {globex.example: {pools: "*", features: "*"}}` + "\n",
		"globex.example/partners.yaml": `partners: {acme.example: {pools: "*", features: "*"}}` + "\n",
	}
}

// with adds files to a policy.
func with(files map[string]string, more ...string) map[string]string {
	for i := 0; i < len(more); i += 2 {
		files[more[i]] = more[i+1]
	}
	return files
}

// pools is a policy with a closed pool in acme.
func pools(more ...string) map[string]string {
	return with(map[string]string{"acme.example/pools.yaml": "vault: {groups: [vault], contact: closed}\n"}, more...)
}

// house is the part of a server that rooms, memberships and directories need, on a real database.
type house struct {
	t        testing.TB
	url      string
	db       *storage.DB
	stream   *stream.Stream
	engine   *policy.Engine
	accounts *account.Service
	rooms    *room.Service
	members  *membership.Service
	handler  http.Handler
	keys     map[matrix.ServerName]signing.Key
	policy   string
	limits   bool
	stop     func()
}

// eachHouse runs a test in a house on both databases.
func eachHouse(t *testing.T, files map[string]string, fn func(t *testing.T, h *house)) {
	t.Parallel()
	for _, name := range storagetest.Databases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fn(t, newHouse(t, name, files, false))
		})
	}
}

func newHouse(t testing.TB, database string, files map[string]string, limits bool) *house {
	t.Helper()
	h := &house{t: t, url: storagetest.URL(t, database), policy: t.TempDir(), keys: map[matrix.ServerName]signing.Key{}, limits: limits}
	for name, text := range files {
		p := filepath.Join(h.policy, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []matrix.ServerName{acme, globex} {
		key, err := signing.Generate(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		h.keys[name] = key
	}
	h.open()
	t.Cleanup(func() { h.stop() })
	return h
}

// testLog writes what a server reports into the log of a test: nothing in these tests is an error of the server.
type testLog struct{ t testing.TB }

func (l *testLog) Write(b []byte) (int, error) {
	l.t.Errorf("server: %s", b)
	return len(b), nil
}

// open starts the services on the database, as after a start of the server.
func (h *house) open() {
	h.t.Helper()
	logger := logrus.New()
	logger.SetOutput(&testLog{t: h.t})
	logger.SetLevel(logrus.ErrorLevel)
	log, tenants := logrus.NewEntry(logger), []matrix.ServerName{acme, globex}
	fatal := func(err error) {
		if err != nil {
			h.t.Helper()
			h.t.Fatal(err)
		}
	}
	var err error
	h.engine, err = policy.New(policy.Options{Bundles: []string{h.policy}, Tenants: []string{string(acme), string(globex)}, Log: log, SkipTests: true, Deadline: time.Minute})
	fatal(err)
	h.stream, h.db, err = stream.Open(context.Background(), stream.Options{Storage: storage.Options{URL: h.url}, Log: log, Poll: 20 * time.Millisecond})
	fatal(err)
	h.accounts, err = account.New(account.Deps{DB: h.db, Policy: h.engine, Log: log, Hash: account.Hashing{MemoryKiB: 64, Passes: 1, Lanes: 1, Parallel: 2},
		Tenant: func(n matrix.ServerName) (account.Tenant, bool) {
			return account.Tenant{Name: n, Registration: account.RegistrationOpen}, n == acme || n == globex
		}})
	fatal(err)
	h.rooms = room.New(room.Deps{DB: h.db, Stream: h.stream, Policy: h.engine, Parties: h.accounts, Keys: h.keys, Log: log})
	h.members = membership.New(membership.Deps{DB: h.db, Policy: h.engine, Rooms: h.rooms, Parties: h.accounts, Log: log, Limits: h.limits, ProfilePace: 1000})
	dir := directory.New(directory.Deps{DB: h.db, Stream: h.stream, Policy: h.engine, Rooms: h.rooms, Parties: h.accounts, PartyOf: h.accounts.PartyOf, Tenants: tenants, Log: log})
	syncing := clientsync.New(clientsync.Deps{DB: h.db, Stream: h.stream, Policy: h.engine, Rooms: h.rooms, Parties: h.accounts, Log: log})
	typing := ephemeral.New(ephemeral.Deps{Policy: h.engine, Rooms: h.rooms, Parties: h.accounts})
	h.handler = clientapi.New(clientapi.Deps{DB: h.db, Stream: h.stream, Policy: h.engine, Accounts: h.accounts, Rooms: h.rooms, Members: h.members,
		Directory: dir, Sync: syncing, Ephemeral: typing, Tenants: []clientapi.Tenant{{Name: acme, Host: "acme.test"}, {Name: globex, Host: "globex.test"}}, Log: log, Version: "test"}).Handler()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range []func() error{
		func() error { return h.stream.Run(ctx) },
		func() error { return h.stream.Follow(ctx, dir.Follower()) },
		func() error { return h.stream.Follow(ctx, h.members.Follower()) },
		func() error { return dir.Run(ctx) },
	} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := run(); err != nil {
				h.t.Error(err)
			}
		}()
	}
	h.stop = func() {
		cancel()
		wg.Wait()
		if err := h.db.Close(); err != nil {
			h.t.Error(err)
		}
	}
}

// restart stops the server and starts it again on what it has stored.
func (h *house) restart() {
	h.t.Helper()
	h.stop()
	h.open()
}

// guest is a logged-in user of the house.
type guest struct {
	h     *house
	id    matrix.UserID
	token string
}

// user makes an account and logs in. groups put it into pools.
func (h *house) user(name string, tenant matrix.ServerName, groups ...string) *guest {
	h.t.Helper()
	ctx := context.Background()
	id := matrix.UserID("@" + name + ":" + string(tenant))
	_, err := h.accounts.Add(ctx, account.Operator("test"), account.NewUser{ID: id, Password: "correct horse battery", DisplayName: strings.ToUpper(name[:1]) + name[1:], Groups: groups})
	if err != nil {
		h.t.Fatalf("add %s: %v", id, err)
	}
	a, err := h.accounts.Login(ctx, tenant, account.Client{}, account.LoginRequest{Type: "m.login.password", Identifier: &account.Identifier{Type: "m.id.user", User: string(id)}, Password: "correct horse battery"})
	if err != nil {
		h.t.Fatalf("log in %s: %v", id, err)
	}
	return &guest{h, id, a.AccessToken}
}

// answer is what a request got.
type answer struct {
	status int
	raw    string
	body   map[string]any
}

func (a answer) code() string    { s, _ := a.body["errcode"].(string); return s }
func (a answer) text() string    { s, _ := a.body["error"].(string); return s }
func (a answer) decided() bool   { _, ok := a.body["org.hansa.decision_id"]; return ok }
func (a answer) String() string  { return fmt.Sprintf("%d %s", a.status, a.raw) }
func (a answer) eventID() string { s, _ := a.body["event_id"].(string); return s }

// do sends a request. The parts of path are escaped; body is JSON text, or a value to be encoded.
func (g *guest) do(method, path string, body any, parts ...any) answer {
	g.h.t.Helper()
	for i, p := range parts {
		parts[i] = url.PathEscape(fmt.Sprint(p))
	}
	text, isText := body.(string)
	if !isText && body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			g.h.t.Fatal(err)
		}
		text = string(b)
	}
	full := fmt.Sprintf(path, parts...)
	if !strings.HasPrefix(full, "/_") {
		full = "/_matrix/client/v3" + full
	}
	r := httptest.NewRequest(method, full, strings.NewReader(text))
	if g.token != "" {
		r.Header.Set("Authorization", "Bearer "+g.token)
	}
	w := httptest.NewRecorder()
	g.h.handler.ServeHTTP(w, r)
	raw, err := io.ReadAll(w.Result().Body)
	if err != nil {
		g.h.t.Fatal(err)
	}
	a := answer{status: w.Code, raw: string(raw)}
	_ = json.Unmarshal(raw, &a.body) // arrays have none
	return a
}

// ok is do for a request that must succeed.
func (g *guest) ok(method, path string, body any, parts ...any) answer {
	g.h.t.Helper()
	a := g.do(method, path, body, parts...)
	if a.status != http.StatusOK {
		g.h.t.Fatalf("%s: %s %s %v: %s", g.id, method, path, parts, a)
	}
	return a
}

// create makes a room.
func (g *guest) create(body any) string {
	g.h.t.Helper()
	id, _ := g.ok("POST", "/createRoom", body).body["room_id"].(string)
	return id
}

// want checks status and code of an answer.
func want(t testing.TB, what string, a answer, status int, code string) {
	t.Helper()
	if a.status != status || a.code() != code {
		t.Errorf("%s: %s; want %d %s", what, a, status, code)
	}
}

// refusedByPolicy checks that an answer is a denial with reason and decision ID.
func refusedByPolicy(t testing.TB, what string, a answer) {
	t.Helper()
	want(t, what, a, 403, "M_FORBIDDEN")
	if !a.decided() || a.body["org.hansa.reasons"] == nil {
		t.Errorf("%s: %s; want a decision ID and reasons", what, a)
	}
}

// stateOf reads one content of the state.
func (g *guest) stateOf(room, typ, key string) answer {
	g.h.t.Helper()
	return g.do("GET", "/rooms/%s/state/%s/%s", nil, room, typ, key)
}

// membershipIn is the membership of a user as the database has it.
func (h *house) membershipIn(room string, user matrix.UserID) string {
	h.t.Helper()
	var out string
	err := h.db.Read(context.Background(), func(tx *storage.Tx) error {
		m, _, err := tx.FindMember(matrix.RoomID(room), user)
		out = m.Membership
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// roomCount is the number of rooms in the database.
func (h *house) roomCount() int {
	h.t.Helper()
	var n int
	err := h.db.Read(context.Background(), func(tx *storage.Tx) error {
		list, _, err := tx.LoadRoomsAfter(0, 10000)
		n = len(list)
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

// until waits until something holds that a follower brings about.
func (h *house) until(what string, holds func() bool) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for pos := int64(-1); !holds(); pos = h.stream.Position() {
		if err := h.stream.Wait(ctx, pos); err != nil {
			h.t.Fatalf("%s: %v", what, err)
		}
	}
}
