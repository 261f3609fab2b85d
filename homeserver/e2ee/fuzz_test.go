package e2ee

import (
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/federation"
	"hansa/matrix"
	"hansa/matrix/canonicaljson"
)

// FuzzParseUpload feeds bytes of clients to every parser of keys: none may panic, and what is accepted is canonical.
func FuzzParseUpload(f *testing.F) {
	d := &device{Caller: Caller{UserID: anna, DeviceID: "DEVICE"}, label: "x", key: newKey("x")}
	i := newIdentity(anna, "fuzz")
	f.Add([]byte(value(d.keys())))
	f.Add([]byte(value(d.batch("k", 2))))
	f.Add([]byte(value(map[string]any{"signed_curve25519:f": d.fallback("f")})))
	f.Add([]byte(value(i.master)))
	f.Add([]byte(value(i.self)))
	f.Add([]byte(`{"curve25519:a":"\u0000","ed25519:\ud83d\ude00":{"key":"a","signatures":{}}}`))
	f.Add([]byte(`{"signatures":{"@a:b":{"ed25519:x":1}},"unsigned":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		v := jsontext.Value(data)
		if p, err := parseUpload(d.Caller, Upload{DeviceKeys: v}); err == nil && !canonicaljson.IsCanonical(p.device.body) {
			t.Errorf("device keys %q are not canonical", p.device.body)
		}
		if p, err := parseUpload(d.Caller, Upload{OneTimeKeys: v, FallbackKeys: v}); err == nil {
			for _, k := range append(p.oneTime, p.fallback...) {
				if !canonicaljson.IsCanonical(k.key) || k.algorithm == "" || k.id == "" {
					t.Errorf("key %q:%q %q", k.algorithm, k.id, k.key)
				}
			}
		}
		keys, err := parseCrossSigning(d.Caller, CrossSigning{MasterKey: v, SelfSigningKey: v, UserSigningKey: v})
		if err == nil {
			t.Errorf("one key was accepted for three uses: %v", keys)
		}
		if k, err := parseCrossKey(d.Caller, master, v); err == nil && (!canonicaljson.IsCanonical(k.body) || k.name != k.public.String()) {
			t.Errorf("cross-signing key %q %q", k.name, k.body)
		}
		if s, err := parseSigned(v, maxKey, "x"); err == nil && !assembled(s) {
			t.Errorf("%q cannot be put together again", data)
		}
	})
}

// assembled tells whether an object is JSON again after its signatures and a name were added.
func assembled(s *signed) bool {
	if len(s.body) < 3 {
		return true // stored keys are never empty
	}
	rows := bySignedKey(nil)[signedKey{}]
	return assemble(s.body, rows, "a \"name\"\x00").IsValid()
}

// FuzzRemoteKeys feeds bytes of other servers to what reads their keys: none may panic, and what is kept is canonical.
func FuzzRemoteKeys(f *testing.F) {
	d, i := farDevice(far, "F1"), newIdentity(far, "fuzz")
	for _, v := range []jsontext.Value{value(d.keys()), value(i.master), value(i.self), value(d.oneTime("x")), jsontext.Value(`{"signatures":{"@far:elsewhere.example":7}}`)} {
		f.Add([]byte(v))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v := jsontext.Value(data)
		a := &federation.KeysAnswer{DeviceKeys: map[matrix.UserID]map[matrix.DeviceID]jsontext.Value{far: {"F1": v}},
			MasterKeys: map[matrix.UserID]jsontext.Value{far: v}, SelfSigningKeys: map[matrix.UserID]jsontext.Value{far: v}}
		if k := readRemote(far, a); k != nil {
			for _, d := range k.devices {
				if _, err := canonicaljson.Canonicalize(d.Keys, true); err != nil {
					t.Errorf("kept %q", d.Keys)
				}
			}
			out := newKeys(nil)
			k.addTo(out, nil)
			if !value(out).IsValid() {
				t.Errorf("answer %q", value(out))
			}
		}
		if id, key := claimedKey(far, "F1", "signed_curve25519", map[string]jsontext.Value{"signed_curve25519:x": v}); key != nil && (id == "" || !canonicaljson.IsCanonical(key)) {
			t.Errorf("claimed %q %q", id, key)
		}
		var u federation.DeviceListUpdate
		var m federation.ToDevice
		_, _ = readEDU(v, &u), readEDU(v, &m)
	})
}
