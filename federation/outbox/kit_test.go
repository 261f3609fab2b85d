package outbox

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage"
	"hansa/storage/statemap"
	"hansa/storage/storagetest"
)

const (
	acme = matrix.ServerName("acme.example")
	far  = matrix.ServerName("far.example")
	anna = matrix.UserID("@anna:acme.example")
)

// leaseTime is so long that no node loses its lease because the machine is busy.
const leaseTime = 15 * time.Second

func ptr(s string) *string { return &s }

// world is a deployment with a log and an outbox, and other servers that are functions.
type world struct {
	t      testing.TB
	stream *stream.Stream
	db     *storage.DB
	peers  *peers
	door   *doors
	rooms  signer
	out    *Outbox
	stop   func()
}

// each runs a test on both databases.
func each(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	for _, name := range storagetest.Databases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fn(t, newWorld(t, name))
		})
	}
}

func newWorld(t testing.TB, database string) *world {
	t.Helper()
	return newNode(t, storagetest.URL(t, database))
}

// newNode is a process on a database that others may use too.
func newNode(t testing.TB, url string) *world {
	t.Helper()
	w := &world{t: t, peers: newPeers(), door: &doors{shut: map[matrix.ServerName]bool{}, leaves: map[matrix.ServerName]bool{}}, stop: func() {}}
	var err error
	w.stream, w.db, err = stream.Open(context.Background(), stream.Options{Storage: storage.Options{URL: url}, Log: storagetest.Quiet(), LeaseTime: leaseTime})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = w.stream.Run(ctx) }()
	t.Cleanup(func() { w.stop(); cancel(); <-done; _ = w.db.Close() })
	return w
}

// start starts an outbox; change may set its limits.
func (w *world) start(change ...func(*tuning)) {
	w.t.Helper()
	w.stop()
	w.out = New(Deps{DB: w.db, Stream: w.stream, Rooms: w.rooms, Client: w.peers, Door: w.door, Log: storagetest.Quiet()})
	w.out.tune.pauseFirst, w.out.tune.pauseLast, w.out.tune.save = 2*time.Millisecond, 20*time.Millisecond, 20*time.Millisecond
	w.out.tune.lazy, w.out.tune.look = 20*time.Millisecond, 50*time.Millisecond
	for _, c := range change {
		c(&w.out.tune)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.out.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("the outbox ended with %v", err)
		}
		w.stop = func() {}
	}
}

// until waits for something to come true.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	end := time.After(time.Minute)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-end:
			w.t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

// flushed waits until a server has everything.
func (w *world) flushed(to matrix.ServerName) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := w.out.Flush(ctx, acme, to); err != nil {
		w.t.Fatalf("%s did not get everything: %v", to, err)
	}
}

// read waits until the log is looked through.
func (w *world) read() {
	w.t.Helper()
	w.until("the log is read", func() bool { s := w.out.current(); return s != nil && s.position() >= w.stream.Position() })
}

func (w *world) update(fn func(tx *storage.Tx) error) {
	w.t.Helper()
	if err := w.db.Update(context.Background(), fn); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) rows() (out []storage.Destination) {
	w.t.Helper()
	if err := w.db.Read(context.Background(), func(tx *storage.Tx) (err error) { out, err = tx.LoadDestinations(); return err }); err != nil {
		w.t.Fatal(err)
	}
	return out
}

// signer is the rooms of these tests.
type signer struct {
	each func() // called for each question, unless nil
}

// IsLocal implements Rooms.
func (signer) IsLocal(n matrix.ServerName) bool { return n == acme || n == "globex.example" }

// Sign implements Rooms.
func (s signer) Sign(_ context.Context, list []*storage.Event) ([]*storage.Event, error) {
	if s.each != nil {
		s.each()
	}
	out := make([]*storage.Event, len(list))
	for i, e := range list {
		c := *e
		c.Event = e.WithSignatures([]byte(`{"` + string(e.Sender.Server()) + `":{"ed25519:1":"c2ln"}}`))
		out[i] = &c
	}
	return out, nil
}

// doors is the door of these tests.
type doors struct {
	mu           sync.Mutex
	shut, leaves map[matrix.ServerName]bool
	asked        int
	each         func() // called for each question
}

// asks sets what is done for each question.
func (d *doors) asks(fn func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.each = fn
}

func (d *doors) set(server matrix.ServerName, shut, leaves bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shut[server], d.leaves[server] = shut, leaves
}

// Outbound implements Door.
func (d *doors) Outbound(_ context.Context, _, to matrix.ServerName) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	if d.each != nil {
		d.each()
	}
	if d.shut[to] {
		return matrix.Forbidden("No partner.")
	}
	return nil
}

// OutboundLeave implements Door.
func (d *doors) OutboundLeave(_ context.Context, _, to matrix.ServerName) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shut[to] && !d.leaves[to] {
		return matrix.Forbidden("No partner.")
	}
	return nil
}

// got is a transaction that a server has got.
type got struct {
	id   string
	body federation.Transaction
	ids  []string // of events, by the test's own name for them
	at   time.Time
}

// peers are the other servers. What a server does with a transaction is up to a function.
type peers struct {
	mu      sync.Mutex
	answer  map[matrix.ServerName]func(ctx context.Context, id string, t federation.Transaction) error
	got     map[matrix.ServerName][]got
	tried   map[matrix.ServerName][]got
	flights map[matrix.ServerName]int
	wrong   []string
}

func newPeers() *peers {
	return &peers{answer: map[matrix.ServerName]func(context.Context, string, federation.Transaction) error{},
		got: map[matrix.ServerName][]got{}, tried: map[matrix.ServerName][]got{}, flights: map[matrix.ServerName]int{}}
}

func (p *peers) on(to matrix.ServerName, fn func(ctx context.Context, id string, t federation.Transaction) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer[to] = fn
}

// Send implements Sender.
func (p *peers) Send(ctx context.Context, _, to matrix.ServerName, id string, t federation.Transaction) (map[matrix.EventID]string, error) {
	g := got{id: id, body: t, ids: names(t), at: time.Now()}
	p.mu.Lock()
	if p.flights[to]++; p.flights[to] > 1 {
		p.wrong = append(p.wrong, fmt.Sprintf("%s has %d transactions under way", to, p.flights[to]))
	}
	if len(t.PDUs) > federation.MaxPDUs || len(t.EDUs) > federation.MaxEDUs {
		p.wrong = append(p.wrong, fmt.Sprintf("%d PDUs and %d EDUs", len(t.PDUs), len(t.EDUs)))
	}
	p.tried[to] = append(p.tried[to], g)
	fn := p.answer[to]
	p.mu.Unlock()
	var err error
	if fn != nil {
		err = fn(ctx, id, t)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flights[to]--
	if err == nil {
		p.got[to] = append(p.got[to], g)
	}
	return nil, err
}

// SendParting implements Sender.
func (p *peers) SendParting(ctx context.Context, as, to matrix.ServerName, id string, t federation.Transaction) (map[matrix.EventID]string, error) {
	for _, n := range names(t) {
		if !strings.HasPrefix(n, "leave") && !strings.HasPrefix(n, "ban") {
			p.mu.Lock()
			p.wrong = append(p.wrong, n+" in the wind-down")
			p.mu.Unlock()
		}
	}
	return p.Send(ctx, as, to, id, t)
}

// names are the bodies of the messages in a transaction, and what else there is.
func names(t federation.Transaction) []string {
	var out []string
	for _, pdu := range t.PDUs {
		var e struct {
			Content struct {
				Body       string `json:"body"`
				Membership string `json:"membership"`
			} `json:"content"`
			StateKey   string         `json:"state_key"`
			Signatures jsontext.Value `json:"signatures"`
		}
		switch err := json.Unmarshal(pdu, &e); {
		case err != nil:
			out = append(out, err.Error())
		case len(e.Signatures) < 5:
			out = append(out, "unsigned")
		case e.Content.Membership != "":
			out = append(out, e.Content.Membership+" "+e.StateKey)
		default:
			out = append(out, e.Content.Body)
		}
	}
	return out
}

// events are the events that a server has got, in the order in which they came.
func (p *peers) events(to matrix.ServerName) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for _, g := range p.got[to] {
		out = append(out, g.ids...)
	}
	return out
}

func (p *peers) transactions(to matrix.ServerName) []got {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got[to])
}

func (p *peers) attempts(to matrix.ServerName) []got {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.tried[to])
}

func (p *peers) edus(to matrix.ServerName, typ string) []string {
	var out []string
	for _, g := range p.transactions(to) {
		for _, e := range g.body.EDUs {
			if e.Type == typ {
				out = append(out, string(e.Content))
			}
		}
	}
	return out
}

func (p *peers) check(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.wrong {
		t.Error(s)
	}
}

// chain is a room whose events follow one another.
type chain struct {
	w       *world
	room    *storage.Room
	root    statemap.Hash
	nodes   map[statemap.Hash][]byte
	members map[matrix.UserID]matrix.EventID
	depth   int64
}

// say is an event to be made.
type say struct {
	sender   matrix.UserID
	typ      string
	stateKey *string
	content  string
	flags    storage.Flags
}

func message(body string) say {
	return say{sender: anna, typ: "m.room.message", content: `{"body":"` + body + `"}`}
}

func member(sender, user matrix.UserID, membership string) say {
	return say{sender: sender, typ: "m.room.member", stateKey: ptr(string(user)), content: `{"membership":"` + membership + `"}`}
}

// newRoom makes a room that anna is in, and users of other servers.
func (w *world) newRoom(name string, users ...matrix.UserID) *chain {
	w.t.Helper()
	v, _ := matrix.FindRoomVersion("11")
	c := &chain{w: w, room: &storage.Room{ID: matrix.RoomID("!" + name + ":acme.example"), Version: v, Tenant: acme}, nodes: map[statemap.Hash][]byte{},
		members: map[matrix.UserID]matrix.EventID{}}
	list := []say{{sender: anna, typ: "m.room.create", stateKey: ptr(""), content: `{"room_version":"11"}`}, member(anna, anna, "join")}
	for _, u := range users {
		list = append(list, member(u, u, "join"))
	}
	c.add(list...)
	return c
}

func (c *chain) load(hs []statemap.Hash) (map[statemap.Hash][]byte, error) {
	out := map[statemap.Hash][]byte{}
	for _, h := range hs {
		out[h] = c.nodes[h]
	}
	return out, nil
}

// add appends events, which are stored when it returns.
func (c *chain) add(list ...say) []*storage.Event {
	c.w.t.Helper()
	a := &storage.Append{Room: c.room, Head: c.room.Head}
	for _, s := range list {
		c.depth++
		e, err := event.Build(c.room.Version, event.Draft{RoomID: c.room.ID, Type: s.typ, StateKey: s.stateKey, Sender: s.sender, Content: []byte(s.content),
			PrevEvents: a.Head.Extremities, Depth: c.depth, OriginServerTS: c.depth})
		if err != nil {
			c.w.t.Fatal(err)
		}
		n := storage.NewEvent{Event: e, Flags: s.flags}
		if s.stateKey != nil && !s.flags.Hidden() {
			ch := statemap.Change{Key: e.Key(), ID: e.ID}
			root, nodes, err := statemap.Put(c.load, c.root, []statemap.Change{ch})
			if err != nil {
				c.w.t.Fatal(err)
			}
			for _, n := range nodes {
				c.nodes[n.Hash] = n.Data
			}
			c.root = root
			a.Nodes, a.State = append(a.Nodes, nodes...), append(a.State, ch)
			n.Replaces = c.members[matrix.UserID(*s.stateKey)]
			c.members[matrix.UserID(*s.stateKey)] = e.ID
		}
		n.StateRoot = c.root
		a.Events = append(a.Events, n)
		a.Head = storage.Head{Name: string(e.ID), Extremities: []matrix.EventID{e.ID}, Depth: c.depth, StateRoot: c.root}
	}
	if err := c.w.db.Append(context.Background(), a); err != nil {
		c.w.t.Fatal(err)
	}
	r, err := c.w.room(c.room.ID)
	if err != nil {
		c.w.t.Fatal(err)
	}
	c.room = r
	return a.Stored
}

func (w *world) room(id matrix.RoomID) (r *storage.Room, err error) {
	err = w.db.Read(context.Background(), func(tx *storage.Tx) error { r, err = tx.LoadRoom(id); return err })
	return r, err
}

// errDown is what a server that is off looks like.
var errDown = errors.New("connection refused")

func wantList(t testing.TB, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %s, want %s", what, strings.Join(got, ", "), strings.Join(want, ", "))
	}
}

func users(n int) []matrix.UserID {
	out := make([]matrix.UserID, n)
	for i := range out {
		out[i] = matrix.UserID(fmt.Sprintf("@u:s%d.example", i))
	}
	return out
}

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }
