package room_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"hansa/homeserver/room"
	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/matrix/signing"
	"hansa/policy"
	"hansa/storage"
	"hansa/storage/storagetest"
)

// facts are the people of these tests: what they are to policy follows from the engine and their pools.
type facts struct {
	engine *policy.Engine
	pools  map[matrix.UserID][]string
}

func (f *facts) Party(_ context.Context, u matrix.UserID) (*policy.Party, error) {
	return f.engine.Resolve(policy.Facts{UserID: string(u), Tenant: string(u.Server()), Pools: f.pools[u]}), nil
}

func (f *facts) Parties(ctx context.Context, users []matrix.UserID) (map[matrix.UserID]*policy.Party, error) {
	out := map[matrix.UserID]*policy.Party{}
	for _, u := range users {
		out[u], _ = f.Party(ctx, u)
	}
	return out, nil
}

type kit struct {
	url    string // of the database
	t      testing.TB
	db     *storage.DB
	raw    *sql.DB // past the server; nil until it is needed
	stream *stream.Stream
	rooms  *room.Service
	facts  *facts
	engine *policy.Engine
	policy string
	keys   map[matrix.ServerName]signing.Key
	far    *far
	// remote answers what the rooms ask other servers; nil: nobody can be asked.
	remote room.Remote
}

const (
	acme   = matrix.ServerName("acme.example")
	globex = matrix.ServerName("globex.example")
)

// newKit starts rooms on a database. files are policy files, by path below the policy directory.
func newKit(t testing.TB, database string, files map[string]string) *kit {
	t.Helper()
	k := &kit{t: t, policy: t.TempDir(), keys: map[matrix.ServerName]signing.Key{}}
	for name, text := range files {
		p := filepath.Join(k.policy, name)
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
		k.keys[name] = key
	}
	farKey, err := signing.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k.far = &far{"far.example", farKey}
	k.engine, err = policy.New(policy.Options{Bundles: []string{k.policy}, Tenants: []string{string(acme), string(globex)}, Log: storagetest.Quiet(), SkipTests: true, Deadline: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	k.facts = &facts{engine: k.engine, pools: map[matrix.UserID][]string{}}
	k.url = storagetest.URL(t, database)
	k.stream, k.db = k.open()
	k.restart()
	return k
}

// open opens the database as a node does.
func (k *kit) open() (*stream.Stream, *storage.DB) {
	k.t.Helper()
	s, db, err := stream.Open(context.Background(), stream.Options{Storage: storage.Options{URL: k.url}, Log: storagetest.Quiet()})
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { _ = db.Close() })
	return s, db
}

// backfill fetches what is missing in the newest hole of a room's history, else before all of it.
func (k *kit) backfill(id matrix.RoomID, limit int) (more bool, err error) {
	k.t.Helper()
	var hole storage.Hole
	k.must(k.db.View(k.ctx(), func(tx *storage.Tx) (err error) { hole, _, _, err = tx.FindHole(id, 1<<62); return err }))
	return k.rooms.Backfill(k.ctx(), id, hole, limit)
}

// restart gives the rooms an empty memory, as after a crash.
func (k *kit) restart() {
	k.rooms = room.New(room.Deps{DB: k.db, Stream: k.stream, Policy: k.engine, Parties: k.facts, Keys: k.keys, Keyring: k.far, Remote: k.remote, Log: storagetest.Quiet()})
}

// far is a server that is not ours: it signs events by hand.
type far struct {
	name matrix.ServerName
	key  signing.Key
}

// PublicKey implements room.Keyring.
func (f *far) PublicKey(_ context.Context, server matrix.ServerName, id signing.KeyID, _ int64) (signing.PublicKey, error) {
	if server != f.name || id != f.key.ID {
		return signing.PublicKey{}, errors.New("no such key")
	}
	return f.key.Public(), nil
}

// Collect implements room.Keyring.
func (f *far) Collect(ctx context.Context, _ matrix.ServerName, _ map[matrix.ServerName]map[signing.KeyID]int64) func(matrix.ServerName, signing.KeyID, int64) (signing.PublicKey, error) {
	return func(server matrix.ServerName, id signing.KeyID, at int64) (signing.PublicKey, error) {
		return f.PublicKey(ctx, server, id, at)
	}
}

// pdu makes a signed event of the far server.
func (f *far) pdu(t testing.TB, version string, d event.Draft) *event.Event {
	t.Helper()
	v, _ := matrix.FindRoomVersion(version)
	e, err := event.Build(v, d)
	if err != nil {
		t.Fatal(err)
	}
	return signing.SignEvent(e, f.name, f.key)
}

func (k *kit) receive(e *event.Event) (room.Received, error) {
	k.t.Helper()
	return k.rooms.Receive(context.Background(), room.Incoming{RoomID: e.RoomID, JSON: event.Federation(e)})
}

// stateID is the current event of a state key.
func (k *kit) stateID(id matrix.RoomID, typ, key string) matrix.EventID {
	k.t.Helper()
	var e *storage.Event
	k.must(k.db.Read(context.Background(), func(tx *storage.Tx) (err error) {
		e, err = tx.LoadStateEvent(id, event.StateKey{Type: typ, Key: key})
		return err
	}))
	return e.ID
}

func (k *kit) head(id matrix.RoomID) storage.Head {
	k.t.Helper()
	var h storage.Head
	k.must(k.rooms.Look(context.Background(), id, func(v room.View) { h = v.Head() }))
	return h
}

func user(name string) matrix.UserID { return matrix.UserID("@" + name + ":" + string(acme)) }

func ptr(s string) *string { return &s }

// create makes a room of a version with a join rule.
func (k *kit) create(version, rule string, creator matrix.UserID) matrix.RoomID {
	k.t.Helper()
	v, ok := matrix.FindRoomVersion(version)
	if !ok {
		k.t.Fatal("no room version " + version)
	}
	content := map[string]any{"room_version": version}
	if v.CreatorField {
		content["creator"] = string(creator)
	}
	levels := map[string]any{"users": map[string]any{string(creator): 100}, "invite": 0}
	if v.PrivilegedCreators {
		levels["users"] = map[string]any{}
	}
	draft := func(typ, key string, content map[string]any, decided bool) room.NewDraft {
		return room.NewDraft{Draft: room.Draft{Type: typ, StateKey: ptr(key), Content: room.Object(content)}, Decided: decided}
	}
	id, err := k.rooms.Create(context.Background(), room.NewRoom{Version: v, Creator: creator, Drafts: []room.NewDraft{
		draft("m.room.create", "", content, true),
		draft("m.room.member", string(creator), map[string]any{"membership": "join"}, true),
		draft("m.room.power_levels", "", levels, true),
		draft("m.room.join_rules", "", map[string]any{"join_rule": rule}, false),
		draft("m.room.history_visibility", "", map[string]any{"history_visibility": "shared"}, false),
	}})
	if err != nil {
		k.t.Fatalf("create a room of version %s: %v", version, err)
	}
	return id
}

func (k *kit) state(id matrix.RoomID, sender matrix.UserID, typ, key string, content map[string]any) error {
	_, err := k.rooms.Send(context.Background(), room.Draft{RoomID: id, Sender: sender, Type: typ, StateKey: &key, Content: room.Object(content)})
	return err
}

func (k *kit) member(id matrix.RoomID, sender, target matrix.UserID, membership string) error {
	return k.state(id, sender, "m.room.member", string(target), map[string]any{"membership": membership})
}

func (k *kit) say(id matrix.RoomID, sender matrix.UserID, body string) (room.Sent, error) {
	return k.rooms.Send(context.Background(), room.Draft{RoomID: id, Sender: sender, Type: "m.room.message",
		Content: room.Object(map[string]any{"msgtype": "m.text", "body": body})})
}

func (k *kit) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

// event reads an event from the database.
func (k *kit) event(id matrix.EventID) *storage.Event {
	k.t.Helper()
	var e *storage.Event
	k.must(k.db.Read(context.Background(), func(tx *storage.Tx) (err error) { e, err = tx.LoadEvent(id); return err }))
	return e
}

func (k *kit) timeline(id matrix.RoomID) []*storage.Event {
	k.t.Helper()
	var list []*storage.Event
	k.must(k.db.Read(context.Background(), func(tx *storage.Tx) (err error) {
		list, err = tx.LoadPage(id, -1<<62, storage.Forward, 100000)
		return err
	}))
	return list
}

func each(t *testing.T, files map[string]string, fn func(t *testing.T, k *kit)) {
	t.Helper()
	for _, name := range storagetest.Databases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fn(t, newKit(t, name, files))
		})
	}
}

func (k *kit) ctx() context.Context { return context.Background() }

func bodyOf(n int) string { return fmt.Sprint("message ", n) }
