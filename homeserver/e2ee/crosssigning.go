package e2ee

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/signing"
	"hansa/storage"
)

// What a cross-signing key is used for.
const (
	master      = "master"
	selfSigning = "self_signing"
	userSigning = "user_signing"
)

// ErrAuthNeeded says that cross-signing keys would be replaced, which the user has to confirm first.
var ErrAuthNeeded = errors.New("e2ee: replacing cross-signing keys has to be confirmed")

// CrossSigning is the body of an upload of cross-signing keys; absent members are nil.
type CrossSigning struct {
	MasterKey      jsontext.Value `json:"master_key"`
	SelfSigningKey jsontext.Value `json:"self_signing_key"`
	UserSigningKey jsontext.Value `json:"user_signing_key"`
}

// crossKey is an uploaded cross-signing key that was checked.
type crossKey struct {
	signed
	usage  string
	name   string // public part, unpadded base64
	public signing.PublicKey
}

func (k *crossKey) id() string { return signing.Algorithm + ":" + k.name }

func invalidSignature(format string, args ...any) *matrix.Error {
	return matrix.Errorf(http.StatusBadRequest, matrix.CodeInvalidSignature, format, args...)
}

func parseCrossSigning(by Caller, c CrossSigning) ([]*crossKey, error) {
	var out []*crossKey
	for _, part := range []struct {
		usage string
		value jsontext.Value
	}{{master, c.MasterKey}, {selfSigning, c.SelfSigningKey}, {userSigning, c.UserSigningKey}} {
		if part.value == nil {
			continue
		}
		k, err := parseCrossKey(by, part.usage, part.value)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(out, func(o *crossKey) bool { return o.name == k.name }) {
			return nil, matrix.InvalidParam("Each cross-signing key needs a key of its own.")
		}
		out = append(out, k)
	}
	return out, nil
}

// parseCrossKey checks one cross-signing key.
//
// spec: client-server-api#cross-signing
func parseCrossKey(by Caller, usage string, v jsontext.Value) (*crossKey, error) {
	what := usage + "_key"
	s, err := parseSigned(v, maxKey, what)
	if err != nil {
		return nil, err
	}
	var c struct {
		UserID *string           `json:"user_id"`
		Usage  []string          `json:"usage"`
		Keys   map[string]string `json:"keys"`
	}
	if err := into(s.body, &c, what); err != nil {
		return nil, err
	}
	switch {
	case c.UserID == nil || *c.UserID != string(by.UserID):
		return nil, matrix.InvalidParam("%s.user_id is not the user of this session.", what)
	case !slices.Contains(c.Usage, usage):
		return nil, matrix.InvalidParam("%s.usage lacks %q.", what, usage)
	case len(c.Keys) != 1:
		return nil, matrix.InvalidParam("%s.keys must hold exactly one key.", what)
	}
	k := &crossKey{signed: *s, usage: usage}
	for id, value := range c.Keys {
		name, ok := strings.CutPrefix(id, signing.Algorithm+":")
		if k.public, err = signing.ParsePublicKey(value); err != nil || !ok || name != value || name != k.public.String() {
			return nil, matrix.InvalidParam("%s.keys must be named ed25519: and the key in unpadded base64.", what)
		}
		k.name = name
	}
	return k, nil
}

// needsAuth says whether keys may be stored only once the user has confirmed it: there is a master key, and something is not just
// as it is stored.
//
// spec: client-server-api#post_matrixclientv3keysdevice_signingupload
func needsAuth(keys []*crossKey, stored map[string]storage.CrossSigningKey) bool {
	if _, ok := stored[master]; !ok {
		return false
	}
	return !unchanged(keys, stored)
}

func unchanged(keys []*crossKey, stored map[string]storage.CrossSigningKey) bool {
	for _, k := range keys {
		if old, ok := stored[k.usage]; !ok || !bytes.Equal(old.Key, k.body) {
			return false
		}
	}
	return true
}

func loadCross(tx *storage.Tx, user matrix.UserID) (map[string]storage.CrossSigningKey, error) {
	list, err := tx.LoadCrossSigningKeys([]matrix.UserID{user})
	out := make(map[string]storage.CrossSigningKey, len(list))
	for _, k := range list {
		out[k.Usage] = k
	}
	return out, err
}

// NeedsAuth tells whether an upload of cross-signing keys has to be confirmed by the user first. Keys that are not well formed are
// an error.
func (s *Service) NeedsAuth(ctx context.Context, by Caller, c CrossSigning) (bool, error) {
	keys, err := parseCrossSigning(by, c)
	if err != nil {
		return false, err
	}
	var needed bool
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		stored, err := loadCross(tx, by.UserID)
		needed = needsAuth(keys, stored)
		return err
	})
	return needed, err
}

// UploadCrossSigning stores cross-signing keys of the caller. Without confirmed, which says that the user has proved to be the
// caller, it returns ErrAuthNeeded where NeedsAuth would have said so.
func (s *Service) UploadCrossSigning(ctx context.Context, by Caller, c CrossSigning, confirmed bool) error {
	keys, err := parseCrossSigning(by, c)
	if err != nil {
		return err
	}
	return s.DB.Update(ctx, func(tx *storage.Tx) error {
		if ok, err := tx.LockUser(by.UserID); err != nil || !ok {
			return orGone(err)
		}
		stored, err := loadCross(tx, by.UserID)
		if err != nil {
			return err
		}
		if !confirmed && needsAuth(keys, stored) {
			return ErrAuthNeeded
		}
		if _, ok := stored[master]; !ok && (len(keys) == 0 || keys[0].usage != master) {
			return matrix.Errorf(http.StatusBadRequest, matrix.CodeMissingParam, "There is no master key yet, and none was given.")
		}
		sigs, err := checkCross(tx, by, keys, stored)
		if err != nil || unchanged(keys, stored) {
			return err
		}
		return replaceCross(tx, by, keys, stored, sigs)
	})
}

// checkCross checks names and signatures of new keys and returns the signatures to keep.
func checkCross(tx *storage.Tx, by Caller, keys []*crossKey, stored map[string]storage.CrossSigningKey) ([]storage.KeySignature, error) {
	devices, err := tx.LoadDeviceIDs([]matrix.UserID{by.UserID})
	if err != nil {
		return nil, err
	}
	masterName := stored[master].PublicKey
	for _, k := range keys {
		if k.usage == master {
			masterName = k.name
		}
		if slices.Contains(devices[by.UserID], matrix.DeviceID(k.name)) {
			return nil, matrix.Forbidden("A device of yours has the ID of the %s key.", k.usage)
		}
	}
	masterKey, err := signing.ParsePublicKey(masterName)
	if err != nil {
		return nil, err
	}
	var out []storage.KeySignature
	for _, k := range keys {
		own := k.signatures[string(by.UserID)]
		if k.usage != master {
			id := signing.Algorithm + ":" + masterName
			if !k.verify(masterKey, own[id]) {
				return nil, invalidSignature("The %s key is not signed by the master key.", k.usage)
			}
			out = append(out, k.signature(by, id, own[id]))
			continue
		}
		more, err := masterSignatures(tx, by, k, own)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}

func (k *crossKey) signature(by Caller, id, sig string) storage.KeySignature {
	return storage.KeySignature{TargetID: by.UserID, TargetKey: k.name, SignerID: by.UserID, SignerKey: id, Signature: sig}
}

// masterSignatures returns the signatures by the user's devices, and its own, that came with a master key. One that is wrong is
// an error; those of keys that nobody knows are left out.
func masterSignatures(tx *storage.Tx, by Caller, k *crossKey, own map[string]string) ([]storage.KeySignature, error) {
	if len(own) == 0 {
		return nil, nil
	}
	devices, err := tx.LoadDeviceKeys([]matrix.UserID{by.UserID})
	if err != nil {
		return nil, err
	}
	known := deviceSigners(devices)
	known[k.id()] = k.public
	var out []storage.KeySignature
	for _, id := range sortedKeys(own) {
		key, ok := known[id]
		if !ok {
			continue
		}
		if !k.verify(key, own[id]) {
			return nil, invalidSignature("The signature %.100q on the master key is wrong.", id)
		}
		out = append(out, k.signature(by, id, own[id]))
	}
	return out, nil
}

// deviceSigners are the keys that devices sign with, by key ID.
func deviceSigners(list []storage.DeviceKeys) map[string]signing.PublicKey {
	out := make(map[string]signing.PublicKey, len(list)+3)
	for _, d := range list {
		if key, ok := publicKeyOf(d.Keys, string(d.DeviceID)); d.Keys != nil && ok {
			out[signing.Algorithm+":"+string(d.DeviceID)] = key
		}
	}
	return out
}

// replaceCross stores new keys and forgets the ones that they replace, with all that those have signed. A new master key also ends
// the keys that the old one had signed.
func replaceCross(tx *storage.Tx, by Caller, keys []*crossKey, stored map[string]storage.CrossSigningKey, sigs []storage.KeySignature) error {
	var rows []storage.CrossSigningKey
	var old, ended []string
	newMaster := false
	given := map[string]bool{}
	for _, k := range keys {
		given[k.usage] = true
		rows = append(rows, storage.CrossSigningKey{UserID: by.UserID, Usage: k.usage, PublicKey: k.name, Key: k.body})
		if o, ok := stored[k.usage]; ok && o.PublicKey != k.name {
			old = append(old, o.PublicKey)
			newMaster = newMaster || k.usage == master
		}
	}
	if newMaster {
		for _, usage := range []string{selfSigning, userSigning} {
			if o, ok := stored[usage]; ok && !given[usage] {
				old, ended = append(old, o.PublicKey), append(ended, usage)
			}
		}
	}
	if len(ended) > 0 {
		if err := tx.DeleteCrossSigningKeys(by.UserID, ended); err != nil {
			return err
		}
	}
	if len(old) > 0 {
		if err := tx.ForgetSignaturesOf(by.UserID, old); err != nil {
			return err
		}
	}
	if err := tx.PutCrossSigningKeys(rows); err != nil {
		return err
	}
	if _, err := tx.PutKeySignatures(sigs, 0); err != nil {
		return err
	}
	return tx.TouchDeviceList(by.UserID)
}

// IsKeyID tells whether a device ID is the public part of a cross-signing key of the user, which no device may have.
//
// spec: client-server-api#cross-signing
func (s *Service) IsKeyID(ctx context.Context, user matrix.UserID, device matrix.DeviceID) (bool, error) {
	var is bool
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		is, err = tx.HasCrossSigningKey(user, string(device))
		return err
	})
	return is, err
}
