package e2ee

import (
	"testing"

	"github.com/go-json-experiment/json/jsontext"

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
