package membership_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"

	"hansa/config"
	"hansa/federation"
	"hansa/matrix"
	"hansa/matrix/signing"
	"hansa/storage/storagetest"
	"hansa/test/hstest"
)

// wire connects servers of one process without a network: each is the Remote, the Gate and the Keyring of the others. It keeps a list of
// what was asked, and can change answers on the way.
type wire struct {
	mu      sync.Mutex
	servers map[matrix.ServerName]*hstest.Server
	keys    map[matrix.ServerName]signing.Key
	// down servers cannot be reached, denied ones are no partners; guarded by mu, as is all below.
	down, denied map[matrix.ServerName]bool
	calls        []string
	template     func(*federation.Template)
	joined       func(*federation.JoinAnswer)
	invited      func([]byte) []byte
}

// answered is what another server has answered.
type answered struct{ err *matrix.Error }

func (a *answered) Error() string { return "the other server: " + a.err.Error() }

func peerError(err error) (int, string, string, bool) {
	var a *answered
	if errors.As(err, &a) {
		return a.err.Status, a.err.Code, a.err.Message, true
	}
	return 0, "", "", false
}

// to begins a call of one server to another.
func (w *wire) to(as, to matrix.ServerName, verb string) (*hstest.Server, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.denied[to] {
		return nil, matrix.Forbidden("%s is no partner of %s.", to, as)
	}
	w.calls = append(w.calls, fmt.Sprintf("%s %s", to, verb))
	if s := w.servers[to]; s != nil && !w.down[to] {
		return s, nil
	}
	return nil, fmt.Errorf("%s cannot be reached", to)
}

// wireError makes of an error what arrives at the other end.
func wireError(err error) error {
	var me *matrix.Error
	if err != nil && !errors.As(err, &me) {
		me = matrix.Errorf(500, matrix.CodeUnknown, "%v", err)
	}
	if err == nil {
		return nil
	}
	return &answered{me}
}

// copied sends a value through JSON, as the network would.
func copied[T any](v *T, err error) (*T, error) {
	if err != nil {
		return nil, wireError(err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	out := new(T)
	return out, json.Unmarshal(b, out)
}

func (w *wire) MakeJoin(ctx context.Context, as, to matrix.ServerName, room matrix.RoomID, user matrix.UserID, versions []string) (*federation.Template, error) {
	s, err := w.to(as, to, "make_join")
	if err != nil {
		return nil, err
	}
	return w.changed(copied(s.Members.MakeJoin(ctx, to, as, room, user, versions)))
}

func (w *wire) changed(t *federation.Template, err error) (*federation.Template, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil && w.template != nil {
		w.template(t)
	}
	return t, err
}

func (w *wire) SendJoin(ctx context.Context, as, to matrix.ServerName, room matrix.RoomID, event []byte, id matrix.EventID) (*federation.JoinAnswer, error) {
	s, err := w.to(as, to, "send_join")
	if err != nil {
		return nil, err
	}
	a, err := copied(s.Members.SendJoin(ctx, to, as, room, id, event, false))
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil && w.joined != nil {
		w.joined(a)
	}
	return a, err
}

func (w *wire) MakeLeave(ctx context.Context, as, to matrix.ServerName, room matrix.RoomID, user matrix.UserID) (*federation.Template, error) {
	s, err := w.to(as, to, "make_leave")
	if err != nil {
		return nil, err
	}
	return w.changed(copied(s.Members.MakeLeave(ctx, to, as, room, user)))
}

func (w *wire) SendLeave(ctx context.Context, as, to matrix.ServerName, room matrix.RoomID, event []byte, id matrix.EventID) error {
	s, err := w.to(as, to, "send_leave")
	if err != nil {
		return err
	}
	return wireError(s.Members.SendLeave(ctx, to, as, room, id, event))
}

func (w *wire) MakeKnock(ctx context.Context, as, to matrix.ServerName, room matrix.RoomID, user matrix.UserID, versions []string) (*federation.Template, error) {
	s, err := w.to(as, to, "make_knock")
	if err != nil {
		return nil, err
	}
	return w.changed(copied(s.Members.MakeKnock(ctx, to, as, room, user, versions)))
}

func (w *wire) SendKnock(ctx context.Context, as, to matrix.ServerName, room matrix.RoomID, event []byte, id matrix.EventID) (*federation.KnockAnswer, error) {
	s, err := w.to(as, to, "send_knock")
	if err != nil {
		return nil, err
	}
	return copied(s.Members.SendKnock(ctx, to, as, room, id, event))
}

func (w *wire) Invite(ctx context.Context, as, to matrix.ServerName, room matrix.RoomID, id matrix.EventID, invite federation.Invite) ([]byte, error) {
	s, err := w.to(as, to, "invite")
	if err != nil {
		return nil, err
	}
	b, err := s.Members.ReceiveInvite(ctx, to, as, room, id, invite)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil && w.invited != nil {
		b = w.invited(b)
	}
	return b, wireError(err)
}

// Outbound implements membership.Gate.
func (w *wire) Outbound(_ context.Context, as, to matrix.ServerName) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.denied[to] {
		return matrix.Forbidden("%s is no partner of %s.", to, as)
	}
	return nil
}

// PublicKey implements room.Keyring.
func (w *wire) PublicKey(_ context.Context, server matrix.ServerName, id signing.KeyID, _ int64) (signing.PublicKey, error) {
	if k, ok := w.keys[server]; ok && k.ID == id {
		return k.Public(), nil
	}
	return signing.PublicKey{}, fmt.Errorf("no key %s of %s", id, server)
}

// Collect implements room.Keyring.
func (w *wire) Collect(ctx context.Context, _ matrix.ServerName, _ map[matrix.ServerName]map[signing.KeyID]int64) func(matrix.ServerName, signing.KeyID, int64) (signing.PublicKey, error) {
	return func(server matrix.ServerName, id signing.KeyID, at int64) (signing.PublicKey, error) {
		return w.PublicKey(ctx, server, id, at)
	}
}

// asked tells how often a server was asked something since the last time, and forgets it.
func (w *wire) asked() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := strings.Join(w.calls, ", ")
	w.calls = nil
	return out
}

func (w *wire) set(fn func(*wire)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn(w)
}

// newWire starts servers named one.example, two.example, ... that are each other's partners.
func newWire(t testing.TB, database string, n int, tenants ...string) (*wire, []*hstest.Server) {
	t.Helper()
	w := &wire{servers: map[matrix.ServerName]*hstest.Server{}, keys: map[matrix.ServerName]signing.Key{}, down: map[matrix.ServerName]bool{}, denied: map[matrix.ServerName]bool{}}
	var list []*hstest.Server
	names := []string{"one.example", "two.example", "three.example"}
	for i := range n {
		mine := []string{names[i]}
		if i == 0 {
			mine = append(mine, tenants...)
		}
		s := hstest.New(t, hstest.Options{Database: database, Tenants: mine, Change: func(c *config.Config) { c.Federation.DefaultPartners = []string{"*"} }})
		w.connect(s, mine...)
		list = append(list, s)
	}
	return w, list
}

// connect puts a server, or one that was started again, onto the wire.
func (w *wire) connect(s *hstest.Server, tenants ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range tenants {
		w.servers[matrix.ServerName(name)], w.keys[matrix.ServerName(name)] = s, s.Rooms.Keys[matrix.ServerName(name)]
	}
	s.Members.Remote, s.Members.Gate, s.Members.PeerError = w, w, peerError
	s.Rooms.Keyring = w
}

func eachWire(t *testing.T, n int, fn func(t *testing.T, w *wire, s []*hstest.Server)) {
	t.Helper()
	for _, name := range storagetest.Databases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, s := newWire(t, name, n)
			fn(t, w, s)
		})
	}
}
