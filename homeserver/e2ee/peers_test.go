package e2ee

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/storage"
)

// peers are other servers that hold devices and keys of their users.
type peers struct {
	mu    sync.Mutex
	users map[matrix.UserID]*federation.Devices
	down  map[matrix.ServerName]bool
	asked []string
	// before runs in the middle of the next request.
	before func()
}

func newPeers() *peers {
	return &peers{users: map[matrix.UserID]*federation.Devices{}, down: map[matrix.ServerName]bool{}}
}

var errDown = errors.New("the server does not answer")

func (p *peers) begin(what string, as, to matrix.ServerName) error {
	p.mu.Lock()
	p.asked = append(p.asked, fmt.Sprintf("%s %s>%s", what, as, to))
	fn, down := p.before, p.down[to]
	p.before = nil
	p.mu.Unlock()
	if fn != nil {
		fn()
	}
	if down || to == "elsewhere.example" && len(p.users) == 0 {
		return errDown
	}
	return nil
}

// calls returns what was asked since it was called last.
func (p *peers) calls() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	slices.Sort(p.asked)
	out := strings.Join(p.asked, ", ")
	p.asked = nil
	return out
}

func (p *peers) Devices(_ context.Context, as, to matrix.ServerName, user matrix.UserID) (*federation.Devices, error) {
	p.mu.Lock()
	var d *federation.Devices
	if found := p.users[user]; found != nil {
		copied := *found
		d = &copied
	}
	p.mu.Unlock()
	if err := p.begin("devices", as, to); err != nil || d != nil {
		return d, err
	}
	return nil, absent{}
}

// absent is the answer about somebody whom a server does not know.
type absent struct{}

func (absent) Error() string   { return "404" }
func (absent) HTTPStatus() int { return 404 }

func (p *peers) QueryKeys(_ context.Context, as, to matrix.ServerName, q federation.KeysQuery) (*federation.KeysAnswer, error) {
	want := q.DeviceKeys
	if err := p.begin("query", as, to); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	out := &federation.KeysAnswer{DeviceKeys: map[matrix.UserID]map[matrix.DeviceID]jsontext.Value{},
		MasterKeys: map[matrix.UserID]jsontext.Value{}, SelfSigningKeys: map[matrix.UserID]jsontext.Value{}}
	for u := range p.users { // more than was asked for
		out.DeviceKeys[u] = map[matrix.DeviceID]jsontext.Value{}
		for _, d := range p.users[u].Devices {
			if len(want[u]) == 0 || slices.Contains(want[u], d.DeviceID) {
				out.DeviceKeys[u][d.DeviceID] = canonicaljson.Set(d.Keys, "unsigned", value(map[string]any{"device_display_name": d.DisplayName, "evil": 1}))
			}
		}
		if p.users[u].MasterKey != nil {
			out.MasterKeys[u], out.SelfSigningKeys[u] = p.users[u].MasterKey, p.users[u].SelfSigningKey
		}
	}
	return out, nil
}

func (p *peers) ClaimKeys(_ context.Context, as, to matrix.ServerName, q federation.KeysClaim) (*federation.ClaimAnswer, error) {
	if err := p.begin("claim", as, to); err != nil {
		return nil, err
	}
	out := &federation.ClaimAnswer{OneTimeKeys: map[matrix.UserID]map[matrix.DeviceID]map[string]jsontext.Value{}}
	for u, devices := range q.OneTimeKeys {
		out.OneTimeKeys[u] = map[matrix.DeviceID]map[string]jsontext.Value{"UNASKED": {"signed_curve25519:x": jsontext.Value(`{}`)}}
		for d := range devices {
			far := &device{Caller: Caller{UserID: u, DeviceID: d}, label: string(u) + string(d), key: newKey(string(u) + string(d))}
			out.OneTimeKeys[u][d] = map[string]jsontext.Value{"signed_curve25519:bad": jsontext.Value(`{"key":1}`), "signed_curve25519:k": value(far.oneTime("k"))}
		}
	}
	return out, nil
}

// farDevice is a device of a user of another server.
func farDevice(user matrix.UserID, id matrix.DeviceID) *device {
	return &device{Caller: Caller{UserID: user, DeviceID: id}, label: string(user) + string(id), key: newKey(string(user) + string(id))}
}

// put gives a user of another server devices at a position of the list.
func (p *peers) put(user matrix.UserID, streamID int64, ids ...matrix.DeviceID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := &federation.Devices{UserID: user, StreamID: streamID}
	if old := p.users[user]; old != nil {
		d.MasterKey, d.SelfSigningKey = old.MasterKey, old.SelfSigningKey
	}
	for _, id := range ids {
		d.Devices = append(d.Devices, federation.Device{DeviceID: id, Keys: canonical(farDevice(user, id).keys()), DisplayName: "Phone " + string(id)})
	}
	p.users[user] = d
}

func canonical(v any) jsontext.Value {
	b, err := canonicaljson.Canonicalize(value(v), true)
	if err != nil {
		panic(err)
	}
	return b
}

// outbox keeps what was handed to other servers.
type outbox struct {
	mu   sync.Mutex
	sent []sent
}

type sent struct {
	as, to   matrix.ServerName
	typ, key string
	content  jsontext.Value
}

func (o *outbox) put(_ *storage.Tx, as, to matrix.ServerName, typ, key string, content []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sent = append(o.sent, sent{as, to, typ, key, slices.Clone(content)})
	return nil
}

// take returns what was handed in since it was called last.
func (o *outbox) take() []sent {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := o.sent
	o.sent = nil
	return out
}

func (s sent) update() (u federation.DeviceListUpdate) {
	if err := json.Unmarshal(s.content, &u); err != nil {
		panic(err)
	}
	return u
}
