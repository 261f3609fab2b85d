package ephemeral

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/homeserver/room"
	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/matrix/signing"
	"hansa/policy"
	"hansa/storage"
	"hansa/storage/storagetest"
)

const (
	acme = "acme.example"
	anna = matrix.UserID("@anna:acme.example")
	bert = matrix.UserID("@bert:acme.example")
	// carl is in a closed pool: anna and bert may not know of him.
	carl = matrix.UserID("@carl:acme.example")
	// gina is of another tenant, without an agreement.
	gina = matrix.UserID("@gina:globex.example")
)

// people tells policy who the users are.
type people struct{ e *policy.Engine }

func (p people) Party(_ context.Context, user matrix.UserID) (*policy.Party, error) {
	return p.e.Resolve(policy.Facts{UserID: string(user)}), nil
}

func (p people) Parties(ctx context.Context, users []matrix.UserID) (map[matrix.UserID]*policy.Party, error) {
	out := map[matrix.UserID]*policy.Party{}
	for _, u := range users {
		out[u], _ = p.Party(ctx, u)
	}
	return out, nil
}

// refused counts the denials that the engine records.
type refused struct {
	mu sync.Mutex
	n  int // guarded by mu
}

func (r *refused) RecordDecisions(_ context.Context, list []policy.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n += len(list)
	return nil
}

func (r *refused) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

func newEngine(t testing.TB, rec policy.Recorder, files map[string]string) *policy.Engine {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, files)
	return engineOf(t, rec, dir)
}

func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func engineOf(t testing.TB, rec policy.Recorder, dir string) *policy.Engine {
	t.Helper()
	e, err := policy.New(policy.Options{Tenants: []string{acme, "globex.example"}, Bundles: []string{dir}, Recorder: rec, Deadline: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func pools() map[string]string {
	return map[string]string{"acme.example/pools.yaml": `research: {users: ["@carl:acme.example"], contact: closed}` + "\n"}
}

// kit is typing, presence and receipts on a real database with real rooms and rules.
type kit struct {
	*Service
	*Receipts
	t      *testing.T
	db     *storage.DB
	rooms  *room.Service
	denied *refused
	engine *policy.Engine
	dir    string // of the policy

	mu     sync.Mutex
	hidden map[matrix.EventID]bool // guarded by mu: what history visibility hides
}

// each runs a test on both databases.
func each(t *testing.T, fn func(t *testing.T, k *kit)) {
	t.Helper()
	t.Parallel()
	for _, name := range storagetest.Databases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fn(t, newKit(t, storagetest.URL(t, name)))
		})
	}
}

func newKit(t *testing.T, url string) *kit {
	t.Helper()
	log := storagetest.Quiet()
	str, db, err := stream.Open(t.Context(), stream.Options{Storage: storage.Options{URL: url}, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	k := &kit{t: t, db: db, denied: &refused{}, hidden: map[matrix.EventID]bool{}, dir: t.TempDir()}
	write(t, k.dir, pools())
	e := engineOf(t, k.denied, k.dir)
	k.engine = e
	keys := map[matrix.ServerName]signing.Key{}
	for _, name := range []matrix.ServerName{acme, "globex.example"} {
		if keys[name], err = signing.Generate(rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	k.rooms = room.New(room.Deps{DB: db, Stream: str, Policy: e, Parties: people{e}, Keys: keys, Log: log})
	k.Service = New(Deps{Policy: e, Rooms: k.rooms, Parties: people{e}})
	k.Receipts = NewReceipts(ReceiptDeps{DB: db, Policy: e, Rooms: k.rooms, Parties: people{e}, Presence: k.Service, Visible: k.visible})
	return k
}

// policy replaces files of the policy and makes them active.
func (k *kit) policy(files map[string]string) {
	k.t.Helper()
	write(k.t, k.dir, files)
	if err := k.engine.Reload(k.t.Context()); err != nil {
		k.t.Fatal(err)
	}
}

func (k *kit) visible(_ *storage.Tx, _ matrix.UserID, events []*storage.Event) (map[matrix.EventID]bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[matrix.EventID]bool{}
	for _, e := range events {
		out[e.ID] = !k.hidden[e.ID]
	}
	return out, nil
}

func (k *kit) by(user matrix.UserID) Caller {
	p, _ := k.Service.Parties.Party(k.t.Context(), user)
	return Caller{User: user, Device: "D", Party: p}
}

// room makes a room that anybody may join.
func (k *kit) room(creator matrix.UserID) matrix.RoomID {
	k.t.Helper()
	v, _ := matrix.FindRoomVersion("11")
	draft := func(typ, key, content string, decided bool) room.NewDraft {
		return room.NewDraft{Draft: room.Draft{Type: typ, StateKey: &key, Content: jsontext.Value(content)}, Decided: decided}
	}
	id, err := k.rooms.Create(k.t.Context(), room.NewRoom{Version: v, Creator: creator, Decision: policy.Decision{Allow: true, ID: "test", Generation: k.engine.Generation()}, Drafts: []room.NewDraft{
		draft("m.room.create", "", `{"room_version":"11"}`, true),
		draft("m.room.member", string(creator), `{"membership":"join"}`, true),
		draft("m.room.power_levels", "", fmt.Sprintf(`{"users":{%q:100}}`, creator), true),
		draft("m.room.join_rules", "", `{"join_rule":"public"}`, false),
	}})
	if err != nil {
		k.t.Fatal(err)
	}
	return id
}

func (k *kit) member(id matrix.RoomID, user matrix.UserID, membership string) {
	k.t.Helper()
	key := string(user)
	_, err := k.rooms.Send(k.t.Context(), room.Draft{RoomID: id, Sender: user, Type: "m.room.member", StateKey: &key,
		Content: jsontext.Value(`{"membership":"` + membership + `"}`)})
	if err != nil {
		k.t.Fatal(err)
	}
}

// say sends a message; relates is the value of m.relates_to, if any.
func (k *kit) say(id matrix.RoomID, user matrix.UserID, relates string) matrix.EventID {
	k.t.Helper()
	content := `{"msgtype":"m.text","body":"hello"`
	if relates != "" {
		content += `,"m.relates_to":` + relates
	}
	sent, err := k.rooms.Send(k.t.Context(), room.Draft{RoomID: id, Sender: user, Type: "m.room.message", Content: jsontext.Value(content + "}")})
	if err != nil {
		k.t.Fatal(err)
	}
	return sent.EventID
}

// wantCode checks the status and errcode of an answer; "" wants none.
func wantCode(t *testing.T, what string, err error, want string) {
	t.Helper()
	got := ""
	var e *matrix.Error
	switch {
	case errors.As(err, &e):
		got = fmt.Sprintf("%d %s", e.Status, e.Code)
	case errors.Is(err, room.ErrUnknownRoom):
		got = "403 M_FORBIDDEN" // as the HTTP layer writes it
	case err != nil:
		got = err.Error()
	}
	if got != want {
		t.Errorf("%s: %q (%v), want %q", what, got, err, want)
	}
}
