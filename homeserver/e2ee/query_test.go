package e2ee

import (
	"crypto/ed25519"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/policy"
)

type query = map[matrix.UserID][]matrix.DeviceID

// identity is a user's cross-signing keys.
type identity struct {
	user              matrix.UserID
	msk, ssk, usk     ed25519.PrivateKey
	master, self, usr map[string]any
}

func newIdentity(user matrix.UserID, seed string) *identity {
	i := &identity{user: user, msk: newKey(seed + "m"), ssk: newKey(seed + "s"), usk: newKey(seed + "u")}
	i.master = i.key(i.msk, master, nil)
	i.self = i.key(i.ssk, selfSigning, i.msk)
	i.usr = i.key(i.usk, userSigning, i.msk)
	return i
}

func (i *identity) key(key ed25519.PrivateKey, usage string, by ed25519.PrivateKey) map[string]any {
	o := map[string]any{"user_id": string(i.user), "usage": []string{usage}, "keys": map[string]string{"ed25519:" + name(key): name(key)}}
	if by == nil {
		return o
	}
	return signedBy(o, i.user, map[string]ed25519.PrivateKey{"ed25519:" + name(by): by})
}

func (i *identity) body() CrossSigning {
	return CrossSigning{MasterKey: value(i.master), SelfSigningKey: value(i.self), UserSigningKey: value(i.usr)}
}

// identity uploads cross-signing keys for a user.
func (w *world) identity(d *device, seed string) *identity {
	w.t.Helper()
	i := newIdentity(d.UserID, seed)
	w.must(w.UploadCrossSigning(w.ctx, d.Caller, i.body(), false))
	return i
}

func users[V any](m map[matrix.UserID]V) []matrix.UserID { return slices.Sorted(maps.Keys(m)) }

func TestQueryKeys_DevicesAndNames(t *testing.T) {
	each(t, func(w *world) {
		d := w.device(anna, "DEVICE").ready(0)
		w.device(anna, `od"d\`).ready(0)
		w.device(anna, "NOKEYS")
		b := w.device(bert, "B")
		keys, err := w.QueryKeys(w.ctx, b.Caller, query{anna: {}, bert: nil, ghost: nil})
		w.must(err)
		if got := users(keys.DeviceKeys); !slices.Equal(got, []matrix.UserID{anna, bert}) {
			w.t.Errorf("users = %v", got)
		}
		if got := slices.Sorted(maps.Keys(keys.DeviceKeys[anna])); !slices.Equal(got, []matrix.DeviceID{"DEVICE", `od"d\`}) || len(keys.DeviceKeys[bert]) != 0 {
			w.t.Errorf("devices of anna = %v, of bert = %v", got, keys.DeviceKeys[bert])
		}
		want := d.keys()
		want["unsigned"] = map[string]string{"device_display_name": "Laptop DEVICE"}
		if got := keys.DeviceKeys[anna]["DEVICE"]; !sameJSON(got, value(want)) {
			w.t.Errorf("keys = %s, want %s", got, value(want))
		}
		if got := value(keys); !got.IsValid() {
			w.t.Errorf("the answer is not JSON: %s", got)
		}
		keys, err = w.QueryKeys(w.ctx, b.Caller, query{anna: {"DEVICE", "UNKNOWN"}})
		if w.must(err); len(keys.DeviceKeys[anna]) != 1 {
			w.t.Errorf("devices = %v", keys.DeviceKeys[anna])
		}
		_, err = w.QueryKeys(w.ctx, b.Caller, query{"nonsense": nil})
		w.refused(err, 400, matrix.CodeInvalidParam)
	})
}

func sameJSON(a, b jsontext.Value) bool {
	a, b = a.Clone(), b.Clone()
	return a.Canonicalize() == nil && b.Canonicalize() == nil && string(a) == string(b)
}

func TestP306_QueryOfDenied(t *testing.T) {
	each(t, func(w *world) {
		w.identity(w.device(anna, "DEVICE").ready(1), "anna")
		w.device(cleo, "C").ready(1)
		b := w.device(bert, "B")
		w.wall.deny(bert, anna)
		keys, err := w.QueryKeys(w.ctx, b.Caller, query{anna: nil, cleo: nil, ghost: nil, far: nil})
		w.must(err)
		if got := users(keys.DeviceKeys); !slices.Equal(got, []matrix.UserID{cleo}) {
			w.t.Errorf("users = %v", got)
		}
		if s := string(value(keys)); strings.Contains(s, "anna") || strings.Contains(s, "nobody") || strings.Contains(s, string(far)) {
			w.t.Errorf("the answer tells of users it must not: %s", s)
		}
		if len(keys.Failures) != 1 || keys.Failures["elsewhere.example"] == nil || len(keys.Failures["elsewhere.example"]) != 0 {
			w.t.Errorf("failures = %v", keys.Failures)
		}
		denied, err := w.QueryKeys(w.ctx, b.Caller, query{anna: {"DEVICE"}})
		w.must(err)
		unknown, err := w.QueryKeys(w.ctx, b.Caller, query{ghost: {"DEVICE"}})
		w.must(err)
		if string(value(denied)) != string(value(unknown)) {
			w.t.Errorf("denied %s, unknown %s", value(denied), value(unknown))
		}
		if slices.Contains(w.wall.asked, policy.KeysClaim) || !slices.Contains(w.wall.asked, policy.KeysQuery) {
			w.t.Errorf("points asked: %v", w.wall.asked)
		}
	})
}

func TestQueryKeys_HidesUserSigning(t *testing.T) {
	each(t, func(w *world) {
		a, b, c := w.device(anna, "A").ready(0), w.device(bert, "B").ready(0), w.device(cleo, "C").ready(0)
		ia, ib := w.identity(a, "anna"), w.identity(b, "bert")
		// anna signs the master key of bert with her user-signing key.
		theirs := signedBy(ib.master, anna, map[string]ed25519.PrivateKey{"ed25519:" + name(ia.usk): ia.usk})
		failed, err := w.UploadSignatures(w.ctx, a.Caller, map[matrix.UserID]map[string]jsontext.Value{bert: {name(ib.msk): value(theirs)}})
		if w.must(err); len(failed) != 0 {
			w.t.Fatalf("failures = %v", failed)
		}
		for _, who := range []struct {
			by   *device
			sees bool
		}{{a, true}, {b, false}, {c, false}} {
			keys, err := w.QueryKeys(w.ctx, who.by.Caller, query{anna: nil, bert: nil})
			w.must(err)
			if _, own := keys.UserSigningKeys[anna]; own != (who.by == a) {
				w.t.Errorf("%s sees user-signing keys of %v", who.by.UserID, users(keys.UserSigningKeys))
			}
			if len(keys.MasterKeys) != 2 || len(keys.SelfSigningKeys) != 2 {
				w.t.Errorf("%s sees %d master and %d self-signing keys", who.by.UserID, len(keys.MasterKeys), len(keys.SelfSigningKeys))
			}
			if sees := strings.Contains(string(keys.MasterKeys[bert]), name(ia.usk)); sees != who.sees {
				w.t.Errorf("%s sees the signature of anna on bert: %t", who.by.UserID, sees)
			}
			if !strings.Contains(string(keys.SelfSigningKeys[anna]), `"ed25519:`+name(ia.msk)+`":`) {
				w.t.Errorf("the self-signing key has lost its signature: %s", keys.SelfSigningKeys[anna])
			}
		}
	})
}

func TestQueryKeys_ThreeReadsHoweverMany(t *testing.T) {
	each(t, func(w *world) {
		b := w.device(bert, "B")
		many := query{}
		for _, u := range []matrix.UserID{anna, bert, cleo, ghost} {
			many[u] = nil
		}
		before := w.DB.Stats().Reads
		_, err := w.QueryKeys(w.ctx, b.Caller, many)
		w.must(err)
		if n := w.DB.Stats().Reads - before; n != 3 {
			w.t.Errorf("a query cost %d reads, want 3", n)
		}
	})
}

func TestUploadKeys_SignedBySelfSigningKey(t *testing.T) {
	each(t, func(w *world) {
		i := w.identity(w.device(anna, "A").ready(0), "anna")
		d := w.device(anna, "D")
		both := map[string]ed25519.PrivateKey{d.keyID(): d.key, "ed25519:" + name(i.ssk): i.ssk, "ed25519:unknown": newKey("x")}
		_, err := d.upload(signedBy(d.keys(), anna, both), nil, nil)
		w.must(err)
		keys, err := w.QueryKeys(w.ctx, d.Caller, query{anna: {"D"}})
		w.must(err)
		if s := string(keys.DeviceKeys[anna]["D"]); !strings.Contains(s, "ed25519:"+name(i.ssk)) || strings.Contains(s, "unknown") {
			w.t.Errorf("keys = %s", s)
		}
		both["ed25519:"+name(i.ssk)] = newKey("wrong")
		_, err = d.upload(signedBy(d.keys(), anna, both), nil, nil)
		w.refused(err, 400, matrix.CodeInvalidSignature)
	})
}
