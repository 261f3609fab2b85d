// Package hstest starts real servers for tests: the whole of homeserver on a database of its own, listening on loopback, with people who
// act through the client-server API like any client.
//
// New starts a Server; Server.User makes and logs in a User; a User's methods act and fail the test themselves, the Try variants return
// what the server said. Passwords are hashed cheaply and rate limits are off; everything else is as in production.
package hstest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"hansa/config"
	"hansa/homeserver"
	"hansa/homeserver/account"
	"hansa/matrix"
	"hansa/storage/storagetest"
)

// Password is the password of every user.
const Password = "Correct-horse-9-battery"

// Options say what server to start.
type Options struct {
	// Database is a name of storagetest.Databases, or a URL. Empty means sqlite.
	Database string
	// Tenants are the hosted domains; none means acme.example and globex.example.
	Tenants []string
	// Policy are the files of the policy directory, by path below it.
	Policy map[string]string
	// Dir keeps data, keys and policy, for a server that is started again. Empty means a new one.
	Dir string
	// NodeOf makes this server another node of a running one, with the same PostgreSQL, tenants, keys, policy and media.
	NodeOf *Server
	// Change may change the configuration.
	Change func(*config.Config)
}

// Server is one running server.
type Server struct {
	*homeserver.Server
	t    testing.TB
	URL  string
	Dir  string
	stop context.CancelFunc
	done chan error
	http *http.Client
}

// New starts a server and stops it when the test ends.
func New(t testing.TB, o Options) *Server {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if len(o.Tenants) == 0 {
		o.Tenants = []string{"acme.example", "globex.example"}
	}
	if o.NodeOf != nil {
		o.Database, o.Tenants = o.NodeOf.Config.Database, nil
		for _, t := range o.NodeOf.Config.Tenants {
			o.Tenants = append(o.Tenants, string(t.Name))
		}
	}
	var names []matrix.ServerName
	for _, n := range o.Tenants {
		names = append(names, matrix.ServerName(n))
	}
	cfg := config.New(names...)
	cfg.DataDir = filepath.Join(o.Dir, "data")
	switch {
	case o.Database == "" || o.Database == "sqlite":
		cfg.Database = "sqlite:" + filepath.Join(o.Dir, "data", "hansa.db")
	case strings.Contains(o.Database, ":"):
		cfg.Database = o.Database
	default:
		cfg.Database = storagetest.URL(t, o.Database)
	}
	shared := o.Dir
	if o.NodeOf != nil {
		shared = o.NodeOf.Dir
	}
	cfg.Listen = config.Listen{Client: "127.0.0.1:0"}
	cfg.Policy.Bundles = []string{filepath.Join(shared, "policy")}
	cfg.Appservices.Directory = filepath.Join(shared, "bridges")
	cfg.Media.Path = filepath.Join(shared, "media")
	cfg.Limits.Enabled = false
	for i := range cfg.Tenants {
		cfg.Tenants[i].SigningKeyFile = filepath.Join(shared, "keys", string(cfg.Tenants[i].Name)+".key")
		cfg.Tenants[i].Registration = config.RegistrationOpen
	}
	if o.Change != nil {
		o.Change(cfg)
	}
	s := &Server{t: t, Dir: o.Dir, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}, Timeout: 2 * time.Minute}}
	if err := os.MkdirAll(filepath.Join(o.Dir, "policy"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range o.Policy {
		s.WritePolicy(name, text)
	}
	s.start(cfg)
	return s
}

func (s *Server) start(cfg *config.Config) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	srv, err := homeserver.New(ctx, cfg, homeserver.Deps{Log: logTo(), Version: "test", PolicyDeadline: time.Minute,
		Hashing: account.Hashing{MemoryKiB: 64, Passes: 1, Lanes: 1, Parallel: 8}})
	if err != nil {
		cancel()
		s.t.Fatalf("start the server: %v", err)
	}
	s.Server, s.stop, s.done = srv, cancel, make(chan error, 1)
	go func() { s.done <- srv.Run(ctx) }()
	select {
	case <-srv.Ready():
	case err := <-s.done:
		s.t.Fatalf("the server ended: %v", err)
	}
	s.URL = "http://" + srv.Addr()
	s.t.Cleanup(s.Stop)
}

// logTo is a log that writes nothing, or to standard error where HANSA_TEST_LOG is set.
func logTo() *logrus.Entry {
	if os.Getenv("HANSA_TEST_LOG") == "" {
		return storagetest.Quiet()
	}
	return logrus.NewEntry(logrus.StandardLogger())
}

// Stop stops the server and waits for it.
func (s *Server) Stop() {
	if s.stop == nil {
		return
	}
	s.stop()
	s.stop = nil
	if err := <-s.done; err != nil {
		s.t.Errorf("the server ended with: %v", err)
	}
}

// Restart stops the server and starts it again on the same data.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	s.start(s.Config)
}

// WritePolicy writes a file of the policy directory.
func (s *Server) WritePolicy(name, text string) {
	s.t.Helper()
	p := filepath.Join(s.Dir, "policy", name)
	if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// ReloadPolicy makes what was written active now, instead of when the watcher sees it.
func (s *Server) ReloadPolicy() {
	s.t.Helper()
	if err := s.Policy.Reload(context.Background()); err != nil {
		s.t.Fatalf("policy: %v", err)
	}
}

// Answer is what the server said.
type Answer struct {
	Status int
	Header http.Header
	Raw    []byte
	JSON   map[string]any
}

// Code is the errcode of an error.
func (a Answer) Code() string { s, _ := a.JSON["errcode"].(string); return s }

// Get finds a value by a path of object members.
func (a Answer) Get(path ...string) any {
	var v any = a.JSON
	for _, p := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[p]
	}
	return v
}

// String finds a string by a path of object members.
func (a Answer) String(path ...string) string { s, _ := a.Get(path...).(string); return s }

// Do makes one request; body may be nil, []byte (sent as it is) or anything that encodes to JSON.
func (s *Server) Do(method, path, token string, body any) Answer {
	s.t.Helper()
	a, err := s.do(method, path, token, body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func (s *Server) do(method, path, token string, body any) (Answer, error) {
	var rd io.Reader
	switch b := body.(type) {
	case nil:
	case []byte:
		rd = bytes.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			return Answer{}, err
		}
		rd = bytes.NewReader(raw)
	}
	if !strings.HasPrefix(path, "/_") && !strings.HasPrefix(path, "/.") {
		path = "/_matrix/client/v3" + path
	}
	req, err := http.NewRequest(method, s.URL+path, rd)
	if err != nil {
		return Answer{}, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if rd != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	a := Answer{Status: resp.StatusCode, Header: resp.Header}
	if a.Raw, err = io.ReadAll(resp.Body); err != nil {
		return a, err
	}
	_ = json.Unmarshal(a.Raw, &a.JSON) // not every answer is an object
	return a, nil
}

// User is somebody with a session.
type User struct {
	S        *Server
	ID       matrix.UserID
	Token    string
	DeviceID string
	// Since is the token of the last sync.
	Since string
	mu    sync.Mutex
	txn   atomic.Int64
}

// User registers somebody on a tenant (the first one unless name is a full user ID) and puts them into pools.
func (s *Server) User(name string, pools ...string) *User {
	s.t.Helper()
	tenant := s.Config.Tenants[0].Name
	if strings.HasPrefix(name, "@") {
		id := matrix.UserID(name)
		name, tenant = id.Localpart(), id.Server()
	}
	u := &User{S: s, ID: matrix.UserID("@" + name + ":" + string(tenant))}
	_, err := s.Accounts.Add(context.Background(), account.Operator("test"), account.NewUser{ID: u.ID, Password: Password, Pools: pools})
	if err != nil {
		s.t.Fatalf("add %s: %v", u.ID, err)
	}
	u.Login("")
	return u
}

// Login opens a new session, on a given device or a new one.
func (u *User) Login(device string) {
	u.S.t.Helper()
	body := map[string]any{"type": "m.login.password", "identifier": map[string]any{"type": "m.id.user", "user": string(u.ID)}, "password": Password}
	if device != "" {
		body["device_id"] = device
	}
	a := u.S.Do("POST", "/login", "", body)
	if a.Status != 200 {
		u.S.t.Fatalf("login of %s: %d %s", u.ID, a.Status, a.Raw)
	}
	u.Token, u.DeviceID = a.String("access_token"), a.String("device_id")
}

// On is the same session of the user, on another node.
func (u *User) On(s *Server) *User {
	other := &User{S: s, ID: u.ID, Token: u.Token, DeviceID: u.DeviceID, Since: u.Since}
	other.txn.Store(u.txn.Add(1_000_000) - 500_000) // a transaction ID says that a request is repeated
	return other
}

// Try makes a request as the user and returns the answer, whatever it is.
func (u *User) Try(method, path string, body any) Answer {
	u.S.t.Helper()
	return u.S.Do(method, path, u.Token, body)
}

// Must makes a request as the user that has to succeed.
func (u *User) Must(method, path string, body any) Answer {
	u.S.t.Helper()
	a := u.Try(method, path, body)
	if a.Status != 200 {
		u.S.t.Fatalf("%s: %s %s: %d %s", u.ID, method, path, a.Status, a.Raw)
	}
	return a
}

// CreateRoom makes a room and returns its ID.
func (u *User) CreateRoom(body map[string]any) string {
	u.S.t.Helper()
	if body == nil {
		body = map[string]any{}
	}
	return u.Must("POST", "/createRoom", body).String("room_id")
}

// Esc escapes a path parameter.
func Esc(s string) string { return url.PathEscape(s) }

// Txn is a transaction ID that the user has not used yet.
func (u *User) Txn() string { return fmt.Sprint("t", u.txn.Add(1)) }

// Send sends a text message and returns its event ID.
func (u *User) Send(room, text string) string {
	u.S.t.Helper()
	return u.Must("PUT", "/rooms/"+Esc(room)+"/send/m.room.message/"+u.Txn(), map[string]any{"msgtype": "m.text", "body": text}).String("event_id")
}

// Join joins a room.
func (u *User) Join(room string) {
	u.S.t.Helper()
	u.Must("POST", "/join/"+Esc(room), map[string]any{})
}

// Invite invites somebody.
func (u *User) Invite(room string, other *User) {
	u.S.t.Helper()
	u.Must("POST", "/rooms/"+Esc(room)+"/invite", map[string]any{"user_id": other.ID})
}

// Sync asks for what is new since the last call, waiting up to the timeout, and moves on.
func (u *User) Sync(timeout time.Duration, params ...string) Answer {
	u.S.t.Helper()
	u.mu.Lock()
	defer u.mu.Unlock()
	q := url.Values{"timeout": {fmt.Sprint(timeout.Milliseconds())}}
	if u.Since != "" {
		q.Set("since", u.Since)
	}
	for i := 0; i+1 < len(params); i += 2 {
		q.Set(params[i], params[i+1])
	}
	a := u.Must("GET", "/sync?"+q.Encode(), nil)
	u.Since = a.String("next_batch")
	return a
}

// Timeline returns the events of a room in a sync answer.
func (a Answer) Timeline(room string) []map[string]any {
	list, _ := a.Get("rooms", "join", room, "timeline", "events").([]any)
	var out []map[string]any
	for _, e := range list {
		if m, ok := e.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

// Await waits until something is so, and fails the test when that takes too long.
func Await(t testing.TB, what string, fn func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(2 * time.Minute); !fn(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// Until syncs until an answer fulfils a condition, and fails the test when it takes too long.
func (u *User) Until(what string, fn func(Answer) bool) Answer {
	u.S.t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for time.Now().Before(deadline) {
		if a := u.Sync(5 * time.Second); fn(a) {
			return a
		}
	}
	u.S.t.Fatalf("%s waited in vain for %s", u.ID, what)
	return Answer{}
}
