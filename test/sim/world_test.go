package sim

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/matrix/signing"
	"hansa/storage"
	"hansa/storage/statemap"
)

// world is one simulation.
type world struct {
	t     reporter
	ctx   context.Context // of the whole simulation
	fleet *fleet
	dir   string
	job
	r        *rand.Rand
	now      time.Time
	servers  []*server
	byName   map[matrix.ServerName]*server
	cut      map[[2]matrix.ServerName]bool
	mail     []*transaction
	room     matrix.RoomID
	said     map[matrix.ServerName][]matrix.EventID // in the end
	verdicts []verdict
	counts
	steps []string
	tell  func(...any) // hears the steps; nil for nobody
}

// verdict is what is known of the moment when a server judged an event that was sent to it: what state was current.
type verdict struct {
	s       *server
	id      matrix.EventID
	current statemap.Hash
}

// watch sees by what state a server judges an event that is about to come: if it is the only one, not known yet, and nothing else has to be
// fetched for it.
func (s *server) watch(ids []matrix.EventID) (judged func()) {
	w := s.w
	v := verdict{s: s, id: ids[0]}
	err := s.rooms.Look(w.ctx, w.room, func(look room.View) { v.current = look.Head().StateRoot })
	if err != nil || len(ids) > 1 {
		return func() {}
	}
	known, pos := false, int64(0)
	must(w.t, s.db.Read(w.ctx, func(tx *storage.Tx) error {
		flags, err := tx.FindEventFlags(ids)
		if f, ok := flags[v.id]; err == nil {
			known = ok && f&storage.Outlier == 0
			pos, err = tx.Position()
		}
		return err
	}))
	return func() {
		if known {
			return
		}
		events := 0
		must(w.t, s.db.Read(w.ctx, func(tx *storage.Tx) error {
			upto, err := tx.Position()
			if err != nil {
				return err
			}
			entries, err := tx.ReadLog(pos, upto)
			for _, e := range entries {
				if e.Kind == storage.KindEvent {
					events++
				}
			}
			return err
		}))
		if events == 1 {
			w.verdicts = append(w.verdicts, v)
		}
	}
}

// transaction is PDUs on their way.
type transaction struct {
	from, to matrix.ServerName
	pdus     [][]byte
	ids      []matrix.EventID
}

const users = 3 // of each server

func newWorld(t reporter, f *fleet, dir string, j job, tell func(...any)) *world {
	t.Helper()
	w := &world{t: t, ctx: context.Background(), fleet: f, dir: dir, job: j, r: rand.New(rand.NewPCG(j.seed, draw(j.version))), now: time.UnixMilli(1_700_000_000_000),
		byName: map[matrix.ServerName]*server{}, cut: map[[2]matrix.ServerName]bool{}, said: map[matrix.ServerName][]matrix.EventID{}, tell: tell}
	for i := range 3 + w.r.IntN(maxServers-2) {
		s := w.newServer(f.names[i])
		w.servers = append(w.servers, s)
		w.byName[s.name] = s
	}
	return w
}

// draw makes the lots of one version others than those of the next.
func draw(version string) uint64 {
	n, _ := strconv.ParseUint(version, 10, 64)
	return n
}

func (w *world) close() {
	for _, s := range w.servers {
		must(w.t, s.db.Close())
	}
}

func (w *world) clock() time.Time { return w.now }

// rng is randomness for a server that depends on the seed alone.
func (w *world) rng() io.Reader {
	var seed [32]byte
	copy(seed[:], fmt.Sprint(w.seed, " ", w.r.Uint64()))
	return rand.NewChaCha8(seed)
}

// PublicKey implements room.Keyring for all servers.
func (w *world) PublicKey(_ context.Context, name matrix.ServerName, _ signing.KeyID, _ int64) (signing.PublicKey, error) {
	return w.fleet.keys[name].Public(), nil
}

// Collect implements room.Keyring.
func (w *world) Collect(ctx context.Context, _ matrix.ServerName, _ map[matrix.ServerName]map[signing.KeyID]int64) func(matrix.ServerName, signing.KeyID, int64) (signing.PublicKey, error) {
	return func(server matrix.ServerName, id signing.KeyID, at int64) (signing.PublicKey, error) {
		return w.PublicKey(ctx, server, id, at)
	}
}

func (w *world) note(format string, args ...any) {
	w.steps = append(w.steps, fmt.Sprintf(format, args...))
	if w.tell != nil {
		w.tell(w.steps[len(w.steps)-1])
	}
}

func (w *world) server() *server { return w.servers[w.r.IntN(len(w.servers))] }

func (w *world) anybody() matrix.UserID { return w.server().user(w.r.IntN(users)) }

func ptr(s string) *string { return &s }

// create makes the room.
func (w *world) create() {
	s := w.servers[0]
	v, _ := matrix.FindRoomVersion(w.version)
	creator := s.user(0)
	content := map[string]any{"room_version": w.version}
	if v.CreatorField {
		content["creator"] = string(creator)
	}
	levels := map[string]any{"users": map[string]any{string(creator): 100}, "invite": 0, "state_default": 50}
	if v.PrivilegedCreators {
		levels["users"] = map[string]any{}
	}
	for _, o := range w.servers[1:] { // somebody with power everywhere
		levels["users"].(map[string]any)[string(o.user(0))] = 100
		levels["users"].(map[string]any)[string(o.user(1))] = 50
	}
	draft := func(typ, key string, content map[string]any, decided bool) room.NewDraft {
		return room.NewDraft{Draft: room.Draft{Type: typ, StateKey: ptr(key), Content: room.Object(content)}, Decided: decided}
	}
	var err error
	w.room, err = s.rooms.Create(w.ctx, room.NewRoom{Version: v, Creator: creator, Drafts: []room.NewDraft{
		draft("m.room.create", "", content, true),
		draft("m.room.member", string(creator), map[string]any{"membership": "join"}, true),
		draft("m.room.power_levels", "", levels, true),
		draft("m.room.join_rules", "", map[string]any{"join_rule": "public"}, false),
		draft("m.room.history_visibility", "", map[string]any{"history_visibility": "shared"}, false),
	}})
	must(w.t, err)
	s.entries++
	w.skip(s)
	for _, o := range w.servers[1:] {
		w.join(o, o.user(0), s)
	}
}

// send lets a user write an event, if that is allowed.
func (w *world) send(s *server, d room.Draft) bool {
	d.RoomID = w.room
	sent, err := s.rooms.Send(w.ctx, d)
	if err != nil {
		w.note("%s may not send %s: %v", d.Sender, d.Type, err)
		return false
	}
	key := ""
	if d.StateKey != nil {
		key = " [" + *d.StateKey + "]"
	}
	w.said[s.name] = append(w.said[s.name], sent.EventID)
	w.note("%s sends %s%s %s as %s", d.Sender, d.Type, key, d.Content, sent.EventID)
	w.post(s)
	return true
}

func (w *world) member(s *server, sender, target matrix.UserID, membership string) bool {
	return w.send(s, room.Draft{Sender: sender, Type: "m.room.member", StateKey: ptr(string(target)), Content: room.Object(map[string]any{"membership": membership})})
}

// in tells whether somebody of a server is joined, by its own account.
func (w *world) in(s *server) bool {
	yes, err := s.rooms.InRoom(w.ctx, w.room, s.name)
	must(w.t, err)
	return yes
}

// join joins a user, by way of another server where nobody of the user's own is in the room.
func (w *world) join(s *server, user matrix.UserID, via *server) bool {
	if w.in(s) {
		return w.send(s, room.Draft{Sender: user, Type: "m.room.member", StateKey: ptr(string(user)), Content: w.joining(s)})
	}
	join, version := w.handshake(s, user, via, w.joining(via))
	if join == nil {
		return false
	}
	state, chain, err := via.rooms.StateFor(w.ctx, via.name, s.name, w.room, join.ID)
	must(w.t, err)
	if err := s.rooms.Adopt(w.ctx, room.Adoption{RoomID: w.room, Version: version, As: s.name, Via: via.name, Event: event.Federation(join), State: state, Auth: chain}); err != nil {
		if !w.ruleless(via) {
			w.t.Fatal(fmt.Sprintf("%s enters by %s: %v", user, via.name, err))
		}
		w.note("%s does not enter by %s: %v", user, via.name, err)
		w.post(via)
		return false
	}
	s.entries++
	w.skip(s)
	w.post(via)
	return true
}

// ruleless tells whether state resolution has taken the power levels or the join rules from a room, as it can before room version 12. Nobody
// enters such a room: what is told of it looks like a part of the truth.
func (w *world) ruleless(s *server) (yes bool) {
	must(w.t, s.rooms.Look(w.ctx, w.room, func(v room.View) {
		yes = v.State("m.room.power_levels", "") == nil || v.State("m.room.join_rules", "") == nil
	}))
	return yes
}

// joining is the content of a join that a server lets happen: where the join is restricted, one of its users vouches for it.
func (w *world) joining(s *server) jsontext.Value {
	content := map[string]any{"membership": "join"}
	_ = s.rooms.Look(w.ctx, w.room, func(v room.View) { // an unknown room has no rules
		rule := ""
		if e := v.State("m.room.join_rules", ""); e != nil {
			rule, _ = event.ContentString(e, "join_rule")
		}
		for i := 0; i < users && strings.HasSuffix(rule, "restricted"); i++ {
			if v.Membership(s.user(i)) == auth.Join {
				content["join_authorised_via_users_server"] = string(s.user(i))
				return
			}
		}
	})
	return room.Object(content)
}

// knock knocks, by way of another server where nobody of the user's own is in the room.
func (w *world) knock(s *server, user matrix.UserID, via *server) {
	if v, _ := matrix.FindRoomVersion(w.version); !v.Knock {
		return
	}
	if w.in(s) {
		w.member(s, user, user, "knock")
	} else if e, _ := w.handshake(s, user, via, room.Object(map[string]any{"membership": "knock"})); e != nil {
		w.post(via)
	}
}

// handshake brings a membership of a user of one server into the room by way of another server, as make_join and send_join do; nil where it is
// not let in.
func (w *world) handshake(s *server, user matrix.UserID, via *server, content jsontext.Value) (*event.Event, string) {
	if w.cut[[2]matrix.ServerName{s.name, via.name}] || via == s {
		return nil, ""
	}
	version, template, err := via.rooms.Prototype(w.ctx, room.Draft{RoomID: w.room, Sender: user, Type: "m.room.member", StateKey: ptr(string(user)), Content: content})
	if err != nil {
		w.note("%s gets no template for %s by %s: %v", user, content, via.name, err)
		return nil, ""
	}
	e := w.fill(s, version, template)
	if _, ok := signing.AuthorisingServer(e); ok {
		e = signing.SignEvent(e, via.name, w.fleet.keys[via.name])
	}
	if _, err := via.rooms.Accept(w.ctx, s.name, w.room, event.Federation(e)); err != nil {
		w.note("%s is not let in with %s by %s: %v", user, content, via.name, err)
		return nil, ""
	}
	w.note("%s is let in with %s by %s as %s", user, content, via.name, e.ID)
	return e, version
}

// skip leaves out what a server has written without anybody having to send it on.
func (w *world) skip(s *server) {
	must(w.t, s.db.Read(w.ctx, func(tx *storage.Tx) (err error) { s.sent, err = tx.Position(); return err }))
}

// fill makes a signed event of a template.
func (w *world) fill(s *server, version string, template []byte) *event.Event {
	v, _ := matrix.FindRoomVersion(version)
	p := prototype(w.t, template)
	d := event.Draft{RoomID: w.room, Type: p.Type, StateKey: &p.StateKey, Sender: matrix.UserID(p.Sender), Content: p.Content, Depth: p.Depth,
		OriginServerTS: w.now.UnixMilli()}
	d.PrevEvents, d.AuthEvents = references(w.t, p.PrevEvents), references(w.t, p.AuthEvents)
	if !v.EventIDHash {
		d.EventID = matrix.EventID(fmt.Sprintf("$join%d:%s", w.r.Uint64(), s.name))
	}
	e, err := event.Build(v, d)
	must(w.t, err)
	return signing.SignEvent(e, s.name, w.fleet.keys[s.name])
}

// post puts what a server has written since the last time into the mail, for every other server that is in the room by its account.
func (w *world) post(s *server) {
	ctx := w.ctx
	var events []*storage.Event
	must(w.t, s.db.Read(ctx, func(tx *storage.Tx) error {
		upto, err := tx.Position()
		if err != nil {
			return err
		}
		entries, err := tx.ReadLog(s.sent, upto)
		for _, e := range entries {
			if e.Kind == storage.KindEvent && (e.Event.Sender.Server() == s.name || e.Event.Flags&storage.Relayed != 0) {
				events = append(events, e.Event)
			}
		}
		s.sent = upto
		return err
	}))
	if len(events) == 0 {
		return
	}
	events, err := s.rooms.Sign(ctx, events)
	must(w.t, err)
	for _, o := range w.servers {
		if o == s {
			continue
		}
		t := &transaction{from: s.name, to: o.name}
		for _, e := range events {
			if w.concerns(s, o, e) {
				t.pdus, t.ids = append(t.pdus, event.Federation(e.Event)), append(t.ids, e.ID)
			}
		}
		if len(t.pdus) > 0 {
			w.mail = append(w.mail, t)
		}
	}
}

// concerns tells whether a server has to be told of an event: it is in the room, or was until then.
func (w *world) concerns(s, o *server, e *storage.Event) bool {
	if e.Sender.Server() == o.name {
		return false
	}
	yes, err := s.rooms.InRoom(w.ctx, w.room, o.name)
	must(w.t, err)
	return yes || e.StateKey != nil && e.Type == auth.TypeMember && matrix.UserID(*e.StateKey).Server() == o.name
}

// deliver brings one piece of mail, unless the network is cut between the two.
func (w *world) deliver(i int) bool {
	t := w.mail[i]
	if w.cut[[2]matrix.ServerName{t.from, t.to}] {
		return false
	}
	w.mail = slices.Delete(w.mail, i, i+1)
	o := w.byName[t.to]
	judged := o.watch(t.ids)
	errs := o.rooms.Ingest(w.ctx, t.to, t.from, w.room, t.pdus)
	for k, err := range errs {
		if err != nil {
			w.note("%s does not take %s of %s: %v", t.to, t.ids[k], t.from, err)
			continue
		}
		w.note("%s takes %s of %s", t.to, t.ids[k], t.from)
		judged()
	}
	w.post(w.byName[t.to])
	return true
}
