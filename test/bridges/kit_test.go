// Package bridges holds tests of application services from outside: a whole server, people with clients, and a bridge that is a small HTTP
// server.
package bridges

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hansa/config"
	"hansa/storage/storagetest"
	"hansa/test/hstest"
)

const (
	asToken = "as-0123456789abcdef0123456789abcdef"
	hsToken = "hs-0123456789abcdef0123456789abcdef"
)

// everything are the decision points that the bridges of these tests may use.
const everything = "[bridge.act, account.register, account.login, room.create, room.join, room.invite, room.knock, room.moderate, room.state, room.alias, room.read, " +
	"event.send, event.redact, profile.read, profile.write, directory.rooms, directory.search, typing.send, receipt.send, todevice.send, keys.query, keys.claim, media.upload]"

// policies permit the bridge irc to act and to meet people of the pool staff.
var policies = map[string]string{
	"acme.example/bridges.yaml": "bridges:\n  irc: {points: " + everything + ", contact: [staff]}\n  mail: {points: " + everything + ", contact: [staff]}\n",
	"acme.example/pools.yaml":   "staff: {groups: [staff], contact: open}\nlab: {groups: [lab], contact: closed}\n",
}

// bridge is a bridge: what it was told, and how it behaves.
type bridge struct {
	t    testing.TB
	http *httptest.Server
	id   string
	as   string
	hs   string

	mu     sync.Mutex
	answer func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
	txns   []txn
	asked  []string // other requests
	wrong  int      // requests without the right token
}

// txn is one transaction as it came.
type txn struct {
	id        string
	confirmed bool
	events    []map[string]any
	ephemeral []map[string]any
	toDevice  []map[string]any
	raw       string
}

func newBridge(t testing.TB, id string) *bridge { return newBridgeAt(t, id, "127.0.0.1:0") }

// newBridgeAt listens at an address of its own, so that nobody else takes the port when the bridge goes away.
func newBridgeAt(t testing.TB, id, address string) *bridge {
	b := &bridge{t: t, id: id, as: id + "-" + asToken, hs: id + "-" + hsToken}
	b.listen(address)
	return b
}

func (b *bridge) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	b.mu.Lock()
	if r.Header.Get("Authorization") != "Bearer "+b.hs {
		b.wrong++
	}
	answer := b.answer
	i := -1
	if rest, ok := strings.CutPrefix(r.URL.Path, "/_matrix/app/v1/transactions/"); ok {
		var c struct {
			Events    []map[string]any `json:"events"`
			Ephemeral []map[string]any `json:"ephemeral"`
			ToDevice  []map[string]any `json:"de.sorunome.msc2409.to_device"`
		}
		if err := json.Unmarshal(body, &c); err != nil {
			b.t.Errorf("a transaction is not JSON: %v", err)
		}
		b.txns = append(b.txns, txn{id: rest, events: c.Events, ephemeral: c.Ephemeral, toDevice: c.ToDevice, raw: string(body)})
		i = len(b.txns) - 1
	} else {
		b.asked = append(b.asked, r.Method+" "+r.URL.Path)
	}
	b.mu.Unlock()
	if answer != nil && answer(w, r) {
		return
	}
	b.mu.Lock()
	if i >= 0 {
		b.txns[i].confirmed = true
	}
	b.mu.Unlock()
	_, _ = io.WriteString(w, "{}")
}

// behave says how the bridge answers from now on; nil: well.
func (b *bridge) behave(fn func(w http.ResponseWriter, r *http.Request) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = fn
}

func status(n int) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(n)
		return true
	}
}

func (b *bridge) all() []txn {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]txn(nil), b.txns...)
}

// bodies are the texts of the messages that the bridge has confirmed, in order.
func (b *bridge) bodies() []string {
	var out []string
	for _, t := range b.all() {
		for _, e := range t.events {
			if c, _ := e["content"].(map[string]any); t.confirmed && e["type"] == "m.room.message" {
				out = append(out, fmt.Sprint(c["body"]))
			}
		}
	}
	return out
}

// text is all that the bridge was ever told, confirmed or not.
func (b *bridge) text() string {
	var out strings.Builder
	for _, t := range b.all() {
		out.WriteString(t.raw + "\n")
	}
	return out.String()
}

// until waits until a condition holds.
func until(t testing.TB, what string, fn func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); <-tick.C {
		if fn() {
			return
		}
	}
	t.Fatalf("waited in vain for %s", what)
}

// hears waits until the bridge has confirmed a message.
func (b *bridge) hears(body string) {
	b.t.Helper()
	until(b.t, "the bridge to hear "+body, func() bool {
		for _, s := range b.bodies() {
			if s == body {
				return true
			}
		}
		return false
	})
}

// registration is the file of a bridge whose ghosts are called @<id>_...
func (b *bridge) registration(more string) string {
	return fmt.Sprintf("id: %s\nurl: %q\nas_token: %s\nhs_token: %s\nsender_localpart: %sbot\ntenant: acme.example\nrate_limited: false\n%snamespaces:\n"+
		"  users: [{exclusive: true, regex: '@%s_.*:acme\\.example'}]\n  aliases: [{exclusive: true, regex: '#%s_.*:acme\\.example'}]\n  rooms: []\n",
		b.id, b.http.URL, b.as, b.hs, b.id, more, b.id, b.id)
}

// write writes a registration.
func write(t testing.TB, dir, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "bridges"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bridges", name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// start starts a server with bridges on one database.
func start(t testing.TB, database string, bridges ...*bridge) *hstest.Server {
	t.Helper()
	dir := t.TempDir()
	for _, b := range bridges {
		write(t, dir, b.id+".yaml", b.registration("receive_ephemeral: true\n"))
	}
	return hstest.New(t, hstest.Options{Database: database, Dir: dir, Policy: policies, Change: func(*config.Config) {}})
}

// both runs a test on both databases.
func both(t *testing.T, fn func(t *testing.T, database string)) {
	for _, name := range storagetest.Databases() {
		t.Run(name, func(t *testing.T) { fn(t, name) })
	}
}

// act makes a request of the bridge as one of its users; user may be empty for the bot.
func (b *bridge) act(s *hstest.Server, user, method, path string, body any) hstest.Answer {
	b.t.Helper()
	if user != "" {
		sep := "?"
		if strings.Contains(path, "?") {
			sep = "&"
		}
		path += sep + "user_id=" + url.QueryEscape(user)
	}
	return s.Do(method, path, b.as, body)
}

// must is act that has to succeed.
func (b *bridge) must(s *hstest.Server, user, method, path string, body any) hstest.Answer {
	b.t.Helper()
	a := b.act(s, user, method, path, body)
	if a.Status != 200 {
		b.t.Fatalf("%s as %q: %s %s: %d %s", b.id, user, method, path, a.Status, a.Raw)
	}
	return a
}

// ghost registers a ghost and returns its ID.
func (b *bridge) ghost(s *hstest.Server, name string) string {
	b.t.Helper()
	a := s.Do("POST", "/register", b.as, map[string]any{"type": "m.login.application_service", "username": b.id + "_" + name, "inhibit_login": true})
	if a.Status != 200 {
		b.t.Fatalf("register ghost %s: %d %s", name, a.Status, a.Raw)
	}
	return a.String("user_id")
}

var txnSeq struct {
	sync.Mutex
	n int
}

func nextTxn() string {
	txnSeq.Lock()
	defer txnSeq.Unlock()
	txnSeq.n++
	return fmt.Sprint("b", txnSeq.n)
}

// say sends a message as a user of the bridge.
func (b *bridge) say(s *hstest.Server, user, room, text string) hstest.Answer {
	b.t.Helper()
	return b.act(s, user, "PUT", "/rooms/"+hstest.Esc(room)+"/send/m.room.message/"+nextTxn(), map[string]any{"msgtype": "m.text", "body": text})
}

func want(t testing.TB, what string, a hstest.Answer, status int, code string) {
	t.Helper()
	if a.Status != status || a.Code() != code {
		t.Errorf("%s: %d %s, want %d %s", what, a.Status, a.Raw, status, code)
	}
}

// listen begins to listen.
func (b *bridge) listen(address string) {
	b.t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		b.t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(b.serve))
	_ = srv.Listener.Close() // the one that it came with
	srv.Listener = l
	srv.Start()
	b.http = srv
	b.t.Cleanup(srv.Close)
}
