package e2ee

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/signing"
	"hansa/policy"
	"hansa/storage"
	"hansa/storage/storagetest"
)

const (
	anna  = matrix.UserID("@anna:acme.example")
	bert  = matrix.UserID("@bert:acme.example")
	cleo  = matrix.UserID("@cleo:globex.example")
	far   = matrix.UserID("@far:elsewhere.example")
	ghost = matrix.UserID("@nobody:acme.example")
)

// wall is a policy: who may not reach whom. It answers in place of the engine.
type wall struct {
	mu         sync.Mutex
	denied     map[[2]string]bool
	fault      error
	generation uint64
	asked      []policy.Point
}

func (w *wall) deny(a, b matrix.UserID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.denied[[2]string{string(a), string(b)}] = true
	w.generation++
}

func (w *wall) Decide(_ context.Context, in *policy.Input) policy.Decision {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, in.Point)
	ok := w.fault == nil && !w.denied[[2]string{in.Subject.ID, in.Target.ID}]
	return policy.Decision{Allow: ok, Err: w.fault, ID: "d", Generation: w.generation, Point: in.Point}
}

func (w *wall) Consider(ctx context.Context, in *policy.Input) policy.Decision {
	if in.Target == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		return policy.Decision{Allow: !w.denied[[2]string{in.Subject.ID, in.Server.Name}], Point: in.Point}
	}
	return w.Decide(ctx, in)
}

func (w *wall) Contact(a, b *policy.Party) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.denied[[2]string{a.ID, b.ID}]
}

func (w *wall) ContactDecision(a, b *policy.Party) policy.Decision {
	return policy.Decision{Allow: w.Contact(a, b), Point: policy.Contact}
}

func (w *wall) Fresh(d policy.Decision) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return d.Generation == w.generation
}

// census knows everybody, existing or not.
type census struct{}

func (census) Party(_ context.Context, u matrix.UserID) (*policy.Party, error) {
	s := u.Server()
	return &policy.Party{Kind: "user", ID: string(u), Tenant: string(s), Local: s != "elsewhere.example"}, nil
}

func (c census) Parties(ctx context.Context, users []matrix.UserID) (map[matrix.UserID]*policy.Party, error) {
	out := map[matrix.UserID]*policy.Party{}
	for _, u := range users {
		out[u], _ = c.Party(ctx, u)
	}
	return out, nil
}

// world is a service on a database with a few people.
type world struct {
	*Service
	t    *testing.T
	ctx  context.Context
	wall *wall
	url  string
	stop func()
	// peers are the other servers, outbox what was handed to them.
	peers  *peers
	outbox *outbox
}

// each runs a test on both databases.
func each(t *testing.T, fn func(w *world)) {
	t.Helper()
	t.Parallel()
	for _, name := range storagetest.Databases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fn(newWorld(t, storagetest.URL(t, name)))
		})
	}
}

func newWorld(t *testing.T, url string) *world {
	t.Helper()
	w := &world{t: t, ctx: context.Background(), wall: &wall{denied: map[[2]string]bool{}}, url: url, peers: newPeers(), outbox: &outbox{}}
	w.open()
	w.update(func(tx *storage.Tx) error {
		for _, u := range []matrix.UserID{anna, bert, cleo} {
			if _, err := tx.InsertUser(&storage.User{ID: u, Tenant: u.Server(), Kind: "user"}); err != nil {
				return err
			}
		}
		return nil
	})
	return w
}

// open starts a service, as a node does.
func (w *world) open() {
	w.t.Helper()
	ctx, stop := context.WithCancel(w.ctx)
	st, db, err := stream.Open(ctx, stream.Options{Storage: storage.Options{URL: w.url, Log: storagetest.Quiet()}, Log: storagetest.Quiet()})
	if err != nil {
		w.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- st.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		stop()
		if err := errors.Join(<-done, db.Close()); err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(w.stop)
	w.Service = New(Deps{DB: db, Policy: w.wall, Parties: census{}, Stream: st, Remote: w.peers, Queue: w.outbox.put, Log: storagetest.Quiet()})
}

// restart stops the node and starts another one.
func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.open()
}

func (w *world) update(fn func(tx *storage.Tx) error) {
	w.t.Helper()
	if err := w.DB.Update(w.ctx, fn); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// refused checks that an error is an answer of the API.
func (w *world) refused(err error, status int, codes ...string) *matrix.Error {
	w.t.Helper()
	me, ok := errors.AsType[*matrix.Error](err)
	if !ok || me.Status != status {
		w.t.Errorf("error = %v, want status %d", err, status)
		return &matrix.Error{}
	}
	for _, c := range codes {
		if me.Code == c {
			return me
		}
	}
	w.t.Errorf("error = %v, want one of %v", me, codes)
	return me
}

// device is a client's device with its keys.
type device struct {
	Caller
	w     *world
	label string
	key   ed25519.PrivateKey
}

// device makes a device in the database, without uploading anything.
func (w *world) device(user matrix.UserID, id matrix.DeviceID) *device {
	w.t.Helper()
	w.update(func(tx *storage.Tx) error {
		_, err := tx.PutDevice(storage.Device{UserID: user, DeviceID: id, DisplayName: "Laptop " + string(id)})
		return err
	})
	return &device{Caller: Caller{UserID: user, DeviceID: id}, w: w, label: string(user) + string(id), key: newKey(string(user) + string(id))}
}

func newKey(seed string) ed25519.PrivateKey {
	h := sha256.Sum256([]byte(seed))
	return ed25519.NewKeyFromSeed(h[:])
}

func name(key ed25519.PrivateKey) string {
	return signing.EncodeBase64(key.Public().(ed25519.PublicKey))
}

// value makes JSON of a Go value.
func value(v any) jsontext.Value {
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		panic(err)
	}
	return b
}

// signedBy returns an object with signatures of a user by the named keys.
func signedBy(o map[string]any, user matrix.UserID, keys map[string]ed25519.PrivateKey) map[string]any {
	c := map[string]any{}
	for k, v := range o {
		if k != "signatures" && k != "unsigned" {
			c[k] = v
		}
	}
	message, err := canonicaljson.Canonicalize(value(c), true)
	if err != nil {
		panic(err)
	}
	sigs := map[string]string{}
	for id, key := range keys {
		sigs[id] = signing.EncodeBase64(ed25519.Sign(key, message))
	}
	c["signatures"] = map[string]any{string(user): sigs}
	return c
}

func (d *device) keyID() string { return "ed25519:" + string(d.DeviceID) }

func (d *device) signer() map[string]ed25519.PrivateKey {
	return map[string]ed25519.PrivateKey{d.keyID(): d.key}
}

func (d *device) keys() map[string]any {
	curve := sha256.Sum256([]byte(d.label + "curve"))
	return signedBy(map[string]any{"user_id": string(d.UserID), "device_id": string(d.DeviceID),
		"algorithms": []string{"m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"},
		"keys":       map[string]string{d.keyID(): name(d.key), "curve25519:" + string(d.DeviceID): signing.EncodeBase64(curve[:])}}, d.UserID, d.signer())
}

func (d *device) oneTime(id string) map[string]any {
	k := sha256.Sum256([]byte(d.label + id))
	return signedBy(map[string]any{"key": signing.EncodeBase64(k[:])}, d.UserID, d.signer())
}

func (d *device) fallback(id string) map[string]any {
	k := sha256.Sum256([]byte(d.label + id))
	return signedBy(map[string]any{"key": signing.EncodeBase64(k[:]), "fallback": true}, d.UserID, d.signer())
}

// batch makes n one-time keys.
func (d *device) batch(prefix string, n int) map[string]any {
	out := map[string]any{}
	for i := range n {
		id := fmt.Sprintf("%s%04d", prefix, i)
		out["signed_curve25519:"+id] = d.oneTime(id)
	}
	return out
}

// upload uploads parts of a body; nil parts are absent.
func (d *device) upload(keys, oneTime, fallback map[string]any) (map[string]int, error) {
	var u Upload
	if keys != nil {
		u.DeviceKeys = value(keys)
	}
	if oneTime != nil {
		u.OneTimeKeys = value(oneTime)
	}
	if fallback != nil {
		u.FallbackKeys = value(fallback)
	}
	return d.w.UploadKeys(d.w.ctx, d.Caller, u)
}

func (d *device) ready(oneTime int) *device {
	d.w.t.Helper()
	_, err := d.upload(d.keys(), d.batch("k", oneTime), map[string]any{"signed_curve25519:fb": d.fallback("fb")})
	d.w.must(err)
	return d
}

// position is where the log is.
func (w *world) position() int64 {
	w.t.Helper()
	var pos int64
	w.must(w.DB.Read(w.ctx, func(tx *storage.Tx) (err error) {
		pos, err = tx.Position()
		return err
	}))
	return pos
}

// touched returns whose device lists changed after a position.
func (w *world) touched(since int64) []matrix.UserID {
	w.t.Helper()
	var list []matrix.UserID
	w.must(w.DB.Read(w.ctx, func(tx *storage.Tx) (err error) {
		list, err = tx.LoadDeviceListChanges(since, 1<<60)
		return err
	}))
	slices.Sort(list)
	return list
}
