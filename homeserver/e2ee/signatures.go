package e2ee

import (
	"bytes"
	"context"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/signing"
	"hansa/policy"
	"hansa/storage"
)

// Failure says why a signature was not stored.
type Failure struct {
	Code    string `json:"errcode"`
	Message string `json:"error"`
}

// Failures are the failures of an upload, by user and key.
type Failures map[matrix.UserID]map[string]Failure

func (f Failures) add(user matrix.UserID, key, code, message string) {
	if f[user] == nil {
		f[user] = map[string]Failure{}
	}
	f[user][key] = Failure{code, message}
}

// notFound is the one answer for keys that do not exist, that are not here, and that policy keeps from the caller.
func (f Failures) notFound(user matrix.UserID, key string) {
	f.add(user, key, matrix.CodeNotFound, "There is no such key.")
}

// UploadSignatures stores signatures of the caller: by any of the own keys on the own devices and master key, and by the
// user-signing key on the master keys of others. Each signature is checked. What cannot be stored is in the answer; the rest is
// stored.
//
// spec: client-server-api#post_matrixclientv3keyssignaturesupload
func (s *Service) UploadSignatures(ctx context.Context, by Caller, body map[matrix.UserID]map[string]jsontext.Value) (Failures, error) {
	users, err := userIDs(body)
	if err != nil {
		return nil, err
	}
	objects, n := map[signedKey]*signed{}, 0
	for _, u := range users {
		for key, v := range body[u] {
			if n++; n > maxSignatures {
				return nil, tooLarge("A request may sign at most %d keys.", maxSignatures)
			}
			if objects[signedKey{u, key}], err = parseSigned(v, maxDeviceKeys, "A signed key"); err != nil {
				return nil, err
			}
		}
	}
	var failed Failures
	_, err = s.decided(ctx, func() (*verdict, error) { return s.judge(ctx, by, policy.KeysSign, nil, users) },
		func(tx *storage.Tx, v *verdict) (err error) {
			failed, err = sign(tx, by, slices.Concat(v.allowed, v.far), body, objects)
			return err
		})
	return failed, err
}

// signers is what is needed to check signatures: the caller's keys, and the keys that may be signed.
type signers struct {
	own      map[string]signing.PublicKey // by key ID
	user     string                       // key ID of the user-signing key
	targets  map[signedKey][]byte
	existing map[storage.KeySignature]bool
}

func loadSigners(tx *storage.Tx, me matrix.UserID, users []matrix.UserID) (*signers, error) {
	all := append([]matrix.UserID{me}, users...)
	devices, err := tx.LoadDeviceKeys([]matrix.UserID{me})
	if err != nil {
		return nil, err
	}
	g := &signers{own: deviceSigners(devices), targets: map[signedKey][]byte{}, existing: map[storage.KeySignature]bool{}}
	for _, d := range devices {
		if d.Keys != nil {
			g.targets[signedKey{me, string(d.DeviceID)}] = d.Keys
		}
	}
	cross, err := tx.LoadCrossSigningKeys(all)
	if err != nil {
		return nil, err
	}
	for _, k := range cross {
		if k.UserID == me || k.Usage == master {
			g.targets[signedKey{k.UserID, k.PublicKey}] = k.Key
		}
		if key, err := signing.ParsePublicKey(k.PublicKey); k.UserID == me && err == nil {
			g.own[signing.Algorithm+":"+k.PublicKey] = key
			if k.Usage == userSigning {
				g.user = signing.Algorithm + ":" + k.PublicKey
			}
		}
	}
	sigs, err := tx.LoadKeySignatures(all, me)
	for _, sig := range sigs {
		g.existing[sig] = true
	}
	return g, err
}

// check returns the signatures of the caller on one object that are new, or the reason why it is refused.
func (g *signers) check(me, user matrix.UserID, key string, object *signed) (fresh []storage.KeySignature, code, reason string) {
	stored, ok := g.targets[signedKey{user, key}]
	switch {
	case !ok:
		return nil, matrix.CodeNotFound, "There is no such key."
	case !bytes.Equal(stored, object.body):
		return nil, matrix.CodeInvalidParam, "The key is not the one that is stored."
	case len(object.signatures[string(me)]) == 0:
		return nil, matrix.CodeInvalidSignature, "The key is not signed by you."
	}
	for _, id := range sortedKeys(object.signatures[string(me)]) {
		sig := storage.KeySignature{TargetID: user, TargetKey: key, SignerID: me, SignerKey: id, Signature: object.signatures[string(me)][id]}
		if g.existing[sig] {
			continue
		}
		public, ok := g.own[id]
		if !ok || user != me && id != g.user || !object.verify(public, sig.Signature) {
			return nil, matrix.CodeInvalidSignature, "The signature is wrong."
		}
		fresh = append(fresh, sig)
	}
	return fresh, "", ""
}

func sign(tx *storage.Tx, by Caller, allowed []matrix.UserID, body map[matrix.UserID]map[string]jsontext.Value, objects map[signedKey]*signed) (Failures, error) {
	if ok, err := tx.LockUser(by.UserID); err != nil || !ok {
		return nil, orGone(err)
	}
	g, err := loadSigners(tx, by.UserID, allowed)
	if err != nil {
		return nil, err
	}
	may := make(map[matrix.UserID]bool, len(allowed))
	for _, u := range allowed {
		may[u] = true
	}
	failed := Failures{}
	var own, others []storage.KeySignature
	for _, user := range sortedKeys(body) {
		for _, key := range sortedKeys(body[user]) {
			if !may[user] {
				failed.notFound(user, key)
				continue
			}
			fresh, code, reason := g.check(by.UserID, user, key, objects[signedKey{user, key}])
			switch {
			case code != "":
				failed.add(user, key, code, reason)
			case user == by.UserID:
				own = append(own, fresh...)
			default:
				others = append(others, fresh...)
			}
		}
	}
	return failed, putSignatures(tx, by.UserID, own, others)
}

// putSignatures stores signatures. Those on own keys concern everybody who shares a room; those on keys of others only the
// signer's own devices.
func putSignatures(tx *storage.Tx, signer matrix.UserID, own, others []storage.KeySignature) error {
	if len(own) > 0 {
		if _, err := tx.PutKeySignatures(own, 0); err != nil {
			return err
		}
		if err := tx.TouchDeviceList(signer); err != nil {
			return err
		}
	}
	if len(others) == 0 {
		return nil
	}
	pos, err := tx.AnnounceSignatures(signer)
	if err != nil {
		return err
	}
	_, err = tx.PutKeySignatures(others, pos)
	return err
}
