package sim

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"hansa/homeserver/room"
	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/matrix/signing"
	"hansa/policy"
	"hansa/storage"
)

// maxServers is how many servers a simulation has at most.
const maxServers = 5

// fleet is what all simulations of a test share, because it is dear to make: policy engines, keys, and an empty database.
type fleet struct {
	names    []matrix.ServerName
	keys     map[matrix.ServerName]signing.Key
	engines  map[bool]map[matrix.ServerName]*policy.Engine // by whether rooms hide their past from newcomers
	template []byte
}

func newFleet(t testing.TB) *fleet {
	t.Helper()
	f := &fleet{keys: map[matrix.ServerName]signing.Key{}, engines: map[bool]map[matrix.ServerName]*policy.Engine{}}
	for i := range maxServers {
		name := matrix.ServerName(fmt.Sprintf("s%d.example", i+1))
		f.names = append(f.names, name)
		seed := make([]byte, ed25519.SeedSize)
		copy(seed, name)
		f.keys[name] = signing.Key{ID: "ed25519:sim", Private: ed25519.NewKeyFromSeed(seed)}
	}
	for _, hides := range []bool{false, true} {
		f.engines[hides] = map[matrix.ServerName]*policy.Engine{}
		for _, name := range f.names {
			f.engines[hides][name] = f.engine(t, name, hides)
		}
	}
	path := filepath.Join(t.TempDir(), "empty.db")
	db, err := storage.Open(context.Background(), storage.Options{URL: "sqlite:" + path, Log: quiet()})
	must(t, err)
	must(t, db.Close())
	f.template, err = os.ReadFile(path)
	must(t, err)
	return f
}

// engine makes the policy of a server: all others are its partners.
func (f *fleet) engine(t testing.TB, name matrix.ServerName, hides bool) *policy.Engine {
	t.Helper()
	dir := t.TempDir()
	text := "partners:\n"
	for _, other := range f.names {
		if other != name {
			text += "  " + string(other) + ": {pools: '*', features: '*'}\n"
		}
	}
	files := map[string]string{"partners.yaml": text}
	if !hides {
		files["rooms.yaml"] = "rooms:\n  partner_history: [shared, invited, joined]\n"
	}
	must(t, os.MkdirAll(filepath.Join(dir, string(name)), 0o700))
	for file, text := range files {
		must(t, os.WriteFile(filepath.Join(dir, string(name), file), []byte(text), 0o600))
	}
	engine, err := policy.New(policy.Options{Bundles: []string{dir}, Tenants: []string{string(name)}, Log: quiet(), SkipTests: true, Deadline: time.Minute})
	must(t, err)
	return engine
}

func must(t reporter, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func quiet() *logrus.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return logrus.NewEntry(l)
}

// server is one homeserver, as far as rooms go.
type server struct {
	w      *world
	name   matrix.ServerName
	path   string
	db     *storage.DB
	stream *stream.Stream
	rooms  *room.Service
	// sent is up to where the log was handed to the network.
	sent int64
	// entries is how often it has come into the room.
	entries int
}

func (w *world) newServer(name matrix.ServerName) *server {
	s := &server{w: w, name: name, path: filepath.Join(w.dir, string(name)+".db")}
	must(w.t, os.WriteFile(s.path, w.fleet.template, 0o600))
	s.open()
	return s
}

func (s *server) open() {
	var err error
	s.stream, s.db, err = stream.Open(context.Background(), stream.Options{Storage: storage.Options{URL: "sqlite:" + s.path, Readers: 1, Now: s.w.clock}, Log: quiet()})
	must(s.w.t, err)
	s.forget()
}

// forget empties the server's memory.
func (s *server) forget() {
	engine := s.w.fleet.engines[s.w.hides()][s.name]
	s.rooms = room.New(room.Deps{DB: s.db, Stream: s.stream, Policy: engine, Parties: people{engine},
		Keys: map[matrix.ServerName]signing.Key{s.name: s.w.fleet.keys[s.name]}, Keyring: s.w, Remote: &link{s}, Log: s.w.log(s.name), Now: s.w.clock, Random: s.w.rng()})
}

// log is quiet but for a simulation that is run to see what happens.
func (w *world) log(name matrix.ServerName) *logrus.Entry {
	e := quiet()
	if w.tell != nil {
		e.Logger.SetOutput(teller{w})
		e.Logger.SetLevel(logrus.DebugLevel)
	}
	return e.WithField("server", name)
}

// teller writes into what the simulation tells.
type teller struct{ w *world }

func (t teller) Write(p []byte) (int, error) {
	t.w.note("%s", strings.TrimSpace(string(p)))
	return len(p), nil
}

// restart stops the server and starts it again.
func (s *server) restart() {
	must(s.w.t, s.db.Close())
	s.open()
}

func (s *server) user(i int) matrix.UserID {
	return matrix.UserID(fmt.Sprintf("@u%d:%s", i, s.name))
}

// people tells policy who somebody is.
type people struct{ engine *policy.Engine }

func (p people) Party(_ context.Context, u matrix.UserID) (*policy.Party, error) {
	return p.engine.Resolve(policy.Facts{UserID: string(u), Tenant: string(u.Server())}), nil
}

func (p people) Parties(ctx context.Context, users []matrix.UserID) (map[matrix.UserID]*policy.Party, error) {
	out := make(map[matrix.UserID]*policy.Party, len(users))
	for _, u := range users {
		out[u], _ = p.Party(ctx, u)
	}
	return out, nil
}

var errCut = errors.New("the network is cut")

// link is how a server asks the others.
type link struct{ s *server }

func (l *link) to(name matrix.ServerName) (*server, error) {
	if l.s.w.cut[[2]matrix.ServerName{l.s.name, name}] {
		return nil, errCut
	}
	if s := l.s.w.byName[name]; s != nil {
		return s, nil
	}
	return nil, errCut
}

func (l *link) Event(ctx context.Context, as, from matrix.ServerName, id matrix.EventID) ([]byte, error) {
	o, err := l.to(from)
	if err != nil {
		return nil, err
	}
	return o.rooms.EventFor(ctx, o.name, as, id)
}

func (l *link) MissingEvents(ctx context.Context, as, from matrix.ServerName, id matrix.RoomID, earliest, latest []matrix.EventID, limit int, minDepth int64) ([][]byte, error) {
	o, err := l.to(from)
	if err != nil {
		return nil, err
	}
	return o.rooms.MissingFor(ctx, o.name, as, id, earliest, latest, limit, minDepth)
}

func (l *link) StateIDs(ctx context.Context, as, from matrix.ServerName, id matrix.RoomID, at matrix.EventID) (state, auth []matrix.EventID, err error) {
	o, err := l.to(from)
	if err != nil {
		return nil, nil, err
	}
	l.s.w.fetched++
	l.s.w.note("%s fetches the state before %s from %s", l.s.name, at, from)
	return o.rooms.StateIDsFor(ctx, o.name, as, id, at)
}

func (l *link) State(ctx context.Context, as, from matrix.ServerName, id matrix.RoomID, at matrix.EventID) (state, auth [][]byte, err error) {
	o, err := l.to(from)
	if err != nil {
		return nil, nil, err
	}
	return o.rooms.StateFor(ctx, o.name, as, id, at)
}

func (l *link) EventAuth(ctx context.Context, as, from matrix.ServerName, id matrix.RoomID, of matrix.EventID) ([][]byte, error) {
	o, err := l.to(from)
	if err != nil {
		return nil, err
	}
	return o.rooms.AuthFor(ctx, o.name, as, id, of)
}

func (l *link) Backfill(ctx context.Context, as, from matrix.ServerName, id matrix.RoomID, events []matrix.EventID, limit int) ([][]byte, error) {
	o, err := l.to(from)
	if err != nil {
		return nil, err
	}
	return o.rooms.BackfillFor(ctx, o.name, as, id, events, limit)
}
