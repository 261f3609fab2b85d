package e2ee

import (
	"errors"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/signing"
)

// Limits on what one request may bring and one device may keep.
const (
	maxUsers         = 20_000    // users that a request names
	maxDeviceKeys    = 16 << 10  // bytes of a device's identity keys
	maxKey           = 4 << 10   // bytes of a one-time, fallback or cross-signing key
	maxName          = 255       // bytes of key IDs and algorithms
	maxOneTimeKeys   = 1000      // one-time keys that a device keeps
	maxFallbackKeys  = 16        // algorithms of which a device has a fallback key
	maxAlgorithms    = 100       // algorithms or keys that a device lists
	maxSignatures    = 5000      // signed objects in a request
	maxMessage       = 64 << 10  // bytes of a to-device message
	maxMessages      = 20_000    // to-device messages that a request makes
	maxEDU           = 64 << 10  // bytes of the content of an EDU, of others and of ours
	maxClaims        = 20_000    // keys that a request claims
	maxSessionData   = 64 << 10  // bytes of a session in a backup
	maxSessions      = 50_000    // sessions in a request
	maxAuthData      = 32 << 10  // bytes of a backup's auth data
	maxMessageNumber = 1<<53 - 1 // largest integer of canonical JSON
)

func tooLarge(format string, args ...any) *matrix.Error {
	return matrix.Errorf(http.StatusRequestEntityTooLarge, matrix.CodeTooLarge, format, args...)
}

// object returns the canonical form of a JSON object.
func object(v jsontext.Value, most int, what string) ([]byte, error) {
	if len(v) > most {
		return nil, tooLarge("%s may have at most %d bytes.", what, most)
	}
	b, err := canonicaljson.Append(nil, v, true)
	if err != nil {
		return nil, canonicaljson.AsMatrix(err)
	}
	if b[0] != '{' {
		return nil, matrix.BadJSON("%s must be an object.", what)
	}
	return b, nil
}

// members reads the members of an object that is JSON already.
func members[V any](v jsontext.Value, what string) (map[string]V, error) {
	if len(v) == 0 {
		return nil, nil
	}
	if v.Kind() != '{' {
		return nil, matrix.BadJSON("%s must be an object.", what)
	}
	var m map[string]V
	return m, into(v, &m, what)
}

// into decodes a part of a body.
func into(v []byte, to any, what string) error {
	err := json.Unmarshal(v, to)
	var semantic *json.SemanticError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &semantic) && semantic.JSONPointer != "":
		return matrix.BadJSON("%s: %.200s has the wrong type.", what, semantic.JSONPointer)
	}
	return matrix.BadJSON("%s is not of the expected form.", what)
}

// signed is a key object taken apart: what was signed, and the signatures by user and key ID.
type signed struct {
	body       []byte // canonical, without signatures and unsigned
	signatures map[string]map[string]string
}

func parseSigned(v jsontext.Value, most int, what string) (*signed, error) {
	b, err := object(v, most, what)
	if err != nil {
		return nil, err
	}
	s := &signed{}
	var signatures []byte
	b, _ = canonicaljson.Cut(b, "unsigned")
	s.body, signatures = canonicaljson.Cut(b, "signatures")
	if signatures != nil {
		if s.signatures, err = members[map[string]string](signatures, "The signatures of "+what); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// signature decodes a signature of 64 bytes, nil if it is none.
func signature(s string) []byte {
	b, err := signing.DecodeBase64(s)
	if err != nil || len(b) != 64 {
		return nil
	}
	return b
}

// verify checks one signature on the object.
func (s *signed) verify(key signing.PublicKey, sig string) bool {
	b := signature(sig)
	return b != nil && key.Verify(s.body, b)
}

// deviceKeys are the identity keys of a device.
type deviceKeys struct {
	signed
	publicKey signing.PublicKey
	own       string // the device's own signature
}

// parseDeviceKeys checks the identity keys that a device uploads. The signature must be there and well formed; those who use the
// keys check it, as they must.
//
// spec: client-server-api#device-keys
// spec: client-server-api#uploading-keys
func parseDeviceKeys(by Caller, v jsontext.Value) (*deviceKeys, error) {
	const what = "device_keys"
	sig, err := parseSigned(v, maxDeviceKeys, what)
	if err != nil {
		return nil, err
	}
	var c struct {
		UserID     *string           `json:"user_id"`
		DeviceID   *string           `json:"device_id"`
		Algorithms []string          `json:"algorithms"`
		Keys       map[string]string `json:"keys"`
	}
	if err := into(sig.body, &c, what); err != nil {
		return nil, err
	}
	switch {
	case c.UserID == nil || *c.UserID != string(by.UserID):
		return nil, matrix.InvalidParam("device_keys.user_id is not the user of this session.")
	case c.DeviceID == nil || *c.DeviceID != string(by.DeviceID):
		return nil, matrix.InvalidParam("device_keys.device_id is not the device of this session.")
	case c.Algorithms == nil || len(c.Algorithms) > maxAlgorithms || len(c.Keys) > maxAlgorithms:
		return nil, matrix.InvalidParam("device_keys needs a list of algorithms and at most %d keys.", maxAlgorithms)
	}
	own := signing.Algorithm + ":" + string(by.DeviceID)
	for id, key := range c.Keys {
		if err := checkDeviceKey(by, id, key); err != nil {
			return nil, err
		}
	}
	d := &deviceKeys{signed: *sig, own: sig.signatures[string(by.UserID)][own]}
	if d.publicKey, err = signing.ParsePublicKey(c.Keys[own]); err != nil {
		return nil, matrix.InvalidParam("device_keys.keys needs the ed25519 key of the device.")
	}
	if signature(d.own) == nil {
		return nil, matrix.InvalidParam("device_keys must be signed by the device itself.")
	}
	return d, nil
}

func checkDeviceKey(by Caller, id, key string) error {
	algorithm, device, ok := strings.Cut(id, ":")
	if !ok || algorithm == "" || device != string(by.DeviceID) || len(key) > maxKey {
		return matrix.InvalidParam("%.100q in device_keys.keys is not an algorithm and the ID of the device.", id)
	}
	if algorithm == "curve25519" {
		if b, err := signing.DecodeBase64(key); err != nil || len(b) != 32 {
			return matrix.InvalidParam("The curve25519 key of the device is not the base64 of 32 bytes.")
		}
	}
	return nil
}

// oneTimeKey is a one-time or fallback key as it was uploaded.
type oneTimeKey struct {
	algorithm, id string
	key           []byte // canonical
}

// parseOneTimeKeys checks one-time or fallback keys, in the order of their names.
//
// spec: client-server-api#one-time-and-fallback-keys
func parseOneTimeKeys(by Caller, v jsontext.Value, most int, what string) ([]oneTimeKey, error) {
	m, err := members[jsontext.Value](v, what)
	if err != nil {
		return nil, err
	}
	if len(m) > most {
		return nil, matrix.InvalidParam("%s may hold at most %d keys.", what, most)
	}
	out := make([]oneTimeKey, 0, len(m))
	for _, name := range sortedKeys(m) {
		algorithm, id, ok := strings.Cut(name, ":")
		if !ok || algorithm == "" || id == "" || len(name) > maxName {
			return nil, matrix.InvalidParam("%.100q in %s is not an algorithm and an ID.", name, what)
		}
		key, err := parseOneTimeKey(by, m[name], algorithm, what)
		if err != nil {
			return nil, err
		}
		out = append(out, oneTimeKey{algorithm, id, key})
	}
	return out, nil
}

func parseOneTimeKey(by Caller, v jsontext.Value, algorithm, what string) ([]byte, error) {
	if v.Kind() == '"' && algorithm != "signed_curve25519" {
		if len(v) > maxKey {
			return nil, tooLarge("A key in %s may have at most %d bytes.", what, maxKey)
		}
		key, err := canonicaljson.Append(nil, v, true)
		if err != nil {
			return nil, canonicaljson.AsMatrix(err)
		}
		return key, nil
	}
	key, err := object(v, maxKey, "A key in "+what)
	if err != nil {
		return nil, err
	}
	var c struct {
		Key        *string                      `json:"key"`
		Fallback   *bool                        `json:"fallback"`
		Signatures map[string]map[string]string `json:"signatures"`
	}
	if err := into(key, &c, what); err != nil {
		return nil, err
	}
	if c.Key == nil {
		return nil, matrix.InvalidParam("A key in %s has no key.", what)
	}
	if algorithm == "signed_curve25519" {
		if b, err := signing.DecodeBase64(*c.Key); err != nil || len(b) != 32 {
			return nil, matrix.InvalidParam("A key in %s is not the base64 of 32 bytes.", what)
		}
		if signature(c.Signatures[string(by.UserID)][signing.Algorithm+":"+string(by.DeviceID)]) == nil {
			return nil, matrix.InvalidParam("A key in %s is not signed by the device.", what)
		}
	}
	return key, nil
}
