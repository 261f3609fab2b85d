package e2ee

import (
	"bytes"
	"context"
	"crypto/sha256"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/signing"
	"hansa/storage"
)

// signedCurve25519 is the algorithm of one-time keys; its count is always told, since clients take a missing one for unknown.
const signedCurve25519 = "signed_curve25519"

// claimedLife is how long a claimed key's ID is remembered, so that a repeated upload does not bring the key back.
const claimedLife = 30 * 24 * time.Hour

// Upload is the body of an upload of keys; absent members are nil.
type Upload struct {
	DeviceKeys   jsontext.Value `json:"device_keys"`
	OneTimeKeys  jsontext.Value `json:"one_time_keys"`
	FallbackKeys jsontext.Value `json:"fallback_keys"`
	// UnstableFallbackKeys is what FallbackKeys was called before; it counts when that is absent.
	UnstableFallbackKeys jsontext.Value `json:"org.matrix.msc2732.fallback_keys"`
}

// parsedUpload is an Upload that was checked.
type parsedUpload struct {
	device   *deviceKeys
	oneTime  []oneTimeKey
	fallback []oneTimeKey
}

func parseUpload(by Caller, u Upload) (*parsedUpload, error) {
	p := &parsedUpload{}
	var err error
	if u.DeviceKeys != nil {
		if p.device, err = parseDeviceKeys(by, u.DeviceKeys); err != nil {
			return nil, err
		}
	}
	if p.oneTime, err = parseOneTimeKeys(by, u.OneTimeKeys, maxOneTimeKeys, "one_time_keys"); err != nil {
		return nil, err
	}
	fallback, name := u.FallbackKeys, "fallback_keys"
	if fallback == nil {
		fallback, name = u.UnstableFallbackKeys, "org.matrix.msc2732.fallback_keys"
	}
	if p.fallback, err = parseOneTimeKeys(by, fallback, maxFallbackKeys, name); err != nil {
		return nil, err
	}
	for i := 1; i < len(p.fallback); i++ {
		if p.fallback[i].algorithm == p.fallback[i-1].algorithm { // they are in the order of their names
			return nil, matrix.InvalidParam("%s may hold one key per algorithm.", name)
		}
	}
	return p, nil
}

// UploadKeys stores identity, one-time and fallback keys of the caller's device, all or nothing, and returns how many one-time
// keys it has now. A one-time key that is there already, or was claimed, is not stored again; one with the ID of another key that
// waits is an error.
//
// spec: client-server-api#post_matrixclientv3keysupload
func (s *Service) UploadKeys(ctx context.Context, by Caller, u Upload) (map[string]int, error) {
	if err := by.device(); err != nil {
		return nil, err
	}
	p, err := parseUpload(by, u)
	if err != nil {
		return nil, err
	}
	if p.device == nil && len(p.oneTime)+len(p.fallback) == 0 {
		counts, _, err := s.Counts(ctx, by.UserID, by.DeviceID)
		return counts, err
	}
	var counts map[string]int
	err = s.DB.UpdateShared(ctx, func(tx *storage.Tx) (err error) {
		counts, err = s.upload(tx, by, p)
		return err
	})
	return counts, err
}

func (s *Service) upload(tx *storage.Tx, by Caller, p *parsedUpload) (map[string]int, error) {
	if p.device != nil {
		if ok, err := tx.LockUser(by.UserID); err != nil || !ok {
			return nil, orGone(err)
		}
	}
	if n, err := tx.LockDevices(by.UserID, []matrix.DeviceID{by.DeviceID}); err != nil || n == 0 {
		return nil, orGone(err)
	}
	var listed, reset bool
	var err error
	if p.device != nil {
		if listed, reset, err = putDeviceKeys(tx, by, p.device); err != nil {
			return nil, err
		}
	}
	counts, added, err := s.putOneTimeKeys(tx, by, p.oneTime)
	if err != nil {
		return nil, err
	}
	changed := reset || added
	for _, k := range p.fallback {
		other, err := tx.PutFallbackKey(k.stored(by))
		if err != nil {
			return nil, err
		}
		changed = changed || other
	}
	if changed {
		if err := tx.AnnounceOneTimeKeys([]matrix.UserID{by.UserID}); err != nil {
			return nil, err
		}
	}
	if listed {
		err = tx.TouchDeviceList(by.UserID)
	}
	return withDefault(counts), err
}

func orGone(err error) error {
	if err == nil {
		err = gone()
	}
	return err
}

func (k oneTimeKey) stored(by Caller) storage.OneTimeKey {
	return storage.OneTimeKey{UserID: by.UserID, DeviceID: by.DeviceID, Algorithm: k.algorithm, KeyID: k.id, Key: k.key}
}

// withDefault returns a copy of counts that names the usual algorithm in any case.
func withDefault(counts map[string]int) map[string]int {
	out := make(map[string]int, len(counts)+1)
	out[signedCurve25519] = 0
	for a, n := range counts {
		out[a] = n
	}
	return out
}

// putDeviceKeys stores identity keys and what they were signed with. listed tells that others must hear of it, reset that the
// device has a new identity: what the old one had signed is of no use any more.
func putDeviceKeys(tx *storage.Tx, by Caller, d *deviceKeys) (listed, reset bool, err error) {
	old, err := tx.LoadKeysOfDevice(by.UserID, by.DeviceID)
	if err != nil {
		return false, false, err
	}
	if !bytes.Equal(old, d.body) {
		if err := tx.PutDeviceKeys(by.UserID, by.DeviceID, d.body); err != nil {
			return false, false, err
		}
		listed = true
		if old != nil {
			key, ok := publicKeyOf(old, string(by.DeviceID))
			reset = !ok || key != d.publicKey
		}
	}
	if reset {
		if err := tx.ForgetOneTimeKeys(by.UserID, by.DeviceID); err != nil {
			return false, false, err
		}
	}
	sigs, err := ownSignatures(tx, by, d)
	if err != nil {
		return false, false, err
	}
	n, err := tx.PutKeySignatures(sigs, 0)
	return listed || n > 0, reset, err
}

// publicKeyOf is the ed25519 key in stored device keys.
func publicKeyOf(keys []byte, device string) (signing.PublicKey, bool) {
	var c struct {
		Keys map[string]string `json:"keys"`
	}
	if err := into(keys, &c, "stored keys"); err != nil {
		return signing.PublicKey{}, false
	}
	k, err := signing.ParsePublicKey(c.Keys[signing.Algorithm+":"+device])
	return k, err == nil
}

// ownSignatures are the signatures on uploaded device keys that are kept: the device's own, and that of the user's self-signing
// key, which must be right.
func ownSignatures(tx *storage.Tx, by Caller, d *deviceKeys) ([]storage.KeySignature, error) {
	by1 := func(id, sig string) storage.KeySignature {
		return storage.KeySignature{TargetID: by.UserID, TargetKey: string(by.DeviceID), SignerID: by.UserID, SignerKey: id, Signature: sig}
	}
	out := []storage.KeySignature{by1(signing.Algorithm+":"+string(by.DeviceID), d.own)}
	own := d.signatures[string(by.UserID)]
	if len(own) < 2 {
		return out, nil
	}
	keys, err := tx.LoadCrossSigningKeys([]matrix.UserID{by.UserID})
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		id := signing.Algorithm + ":" + k.PublicKey
		sig, ok := own[id]
		if !ok || k.Usage != selfSigning {
			continue
		}
		key, err := signing.ParsePublicKey(k.PublicKey)
		if err != nil || !d.verify(key, sig) {
			return nil, invalidSignature("The signature of the self-signing key on device_keys is wrong.")
		}
		out = append(out, by1(id, sig))
	}
	return out, nil
}

// putOneTimeKeys stores those keys that are new and returns what there is now.
func (s *Service) putOneTimeKeys(tx *storage.Tx, by Caller, keys []oneTimeKey) (counts map[string]int, added bool, err error) {
	c, err := tx.LoadKeyCounts(by.UserID, by.DeviceID)
	if err != nil || len(keys) == 0 {
		return c.OneTime, false, err
	}
	if err := tx.PruneClaimedKeys(by.UserID, by.DeviceID, s.Now().Add(-claimedLife).UnixMilli()); err != nil {
		return nil, false, err
	}
	ids := make([]string, len(keys))
	for i, k := range keys {
		ids[i] = k.id
	}
	list, err := tx.LoadKnownKeys(by.UserID, by.DeviceID, ids)
	if err != nil {
		return nil, false, err
	}
	type name struct{ algorithm, id string }
	known := map[name][]storage.KnownKey{}
	for _, k := range list {
		n := name{k.Algorithm, k.KeyID}
		known[n] = append(known[n], k)
	}
	var fresh []storage.OneTimeKey
	total := 0
	for _, n := range c.OneTime {
		total += n
	}
next:
	for _, k := range keys {
		for _, old := range known[name{k.algorithm, k.id}] {
			switch {
			case bytes.Equal(old.Key, k.key), bytes.Equal(old.Hash, hashKey(k.key)):
				continue next
			case old.Key != nil:
				return nil, false, matrix.InvalidParam("There is another one-time key %.100q of this device already.", k.algorithm+":"+k.id)
			}
		}
		fresh = append(fresh, k.stored(by))
		c.OneTime[k.algorithm]++
	}
	if total+len(fresh) > maxOneTimeKeys {
		return nil, false, matrix.InvalidParam("A device may keep at most %d one-time keys; it has %d.", maxOneTimeKeys, total)
	}
	return c.OneTime, len(fresh) > 0, tx.PutOneTimeKeys(fresh)
}

// hashKey is what is remembered of a claimed key.
func hashKey(key []byte) []byte {
	h := sha256.Sum256(key)
	return h[:]
}
