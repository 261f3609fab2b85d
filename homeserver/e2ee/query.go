package e2ee

import (
	"context"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/policy"
	"hansa/storage"
)

// Keys is the answer to a query for keys.
type Keys struct {
	DeviceKeys      map[matrix.UserID]map[matrix.DeviceID]jsontext.Value `json:"device_keys"`
	MasterKeys      map[matrix.UserID]jsontext.Value                     `json:"master_keys"`
	SelfSigningKeys map[matrix.UserID]jsontext.Value                     `json:"self_signing_keys"`
	UserSigningKeys map[matrix.UserID]jsontext.Value                     `json:"user_signing_keys"`
	Failures        ServerFailures                                       `json:"failures"`
}

// keyRows is what the database holds about the users of a query.
type keyRows struct {
	devices []storage.DeviceKeys
	cross   []storage.CrossSigningKey
	sigs    []storage.KeySignature
}

// QueryKeys returns the keys of users and of those of their devices that are named (all where none is). Users whom policy keeps
// from the caller are as absent as those who do not exist. The user-signing key is shown to its owner only, and of signatures
// those that the owner of the key made and those of the caller.
//
// spec: client-server-api#post_matrixclientv3keysquery
// spec: client-server-api#key-and-signature-security
func (s *Service) QueryKeys(ctx context.Context, by Caller, want map[matrix.UserID][]matrix.DeviceID) (*Keys, error) {
	users, err := userIDs(want)
	if err != nil {
		return nil, err
	}
	v, err := s.judge(ctx, by, policy.KeysQuery, nil, users)
	if err != nil {
		return nil, err
	}
	var rows keyRows
	if err := s.DB.View(ctx, func(tx *storage.Tx) (err error) {
		rows, err = loadKeys(tx, v.allowed, by.UserID)
		return err
	}); err != nil {
		return nil, err
	}
	out := newKeys(v.failures())
	out.add(rows, want, by.UserID)
	return out, s.queryRemote(ctx, by, v.far, want, out)
}

func newKeys(failures ServerFailures) *Keys {
	return &Keys{DeviceKeys: map[matrix.UserID]map[matrix.DeviceID]jsontext.Value{}, MasterKeys: map[matrix.UserID]jsontext.Value{},
		SelfSigningKeys: map[matrix.UserID]jsontext.Value{}, UserSigningKeys: map[matrix.UserID]jsontext.Value{}, Failures: failures}
}

// add puts what the database holds into an answer for a viewer.
func (out *Keys) add(rows keyRows, want map[matrix.UserID][]matrix.DeviceID, viewer matrix.UserID) {
	sigs := bySignedKey(rows.sigs)
	for _, d := range rows.devices {
		if out.DeviceKeys[d.UserID] == nil {
			out.DeviceKeys[d.UserID] = map[matrix.DeviceID]jsontext.Value{}
		}
		if only := want[d.UserID]; d.Keys != nil && (len(only) == 0 || slices.Contains(only, d.DeviceID)) {
			out.DeviceKeys[d.UserID][d.DeviceID] = assemble(d.Keys, sigs[signedKey{d.UserID, string(d.DeviceID)}], d.DisplayName)
		}
	}
	for _, k := range rows.cross {
		key := assemble(k.Key, sigs[signedKey{k.UserID, k.PublicKey}], "")
		switch {
		case k.Usage == master:
			out.MasterKeys[k.UserID] = key
		case k.Usage == selfSigning:
			out.SelfSigningKeys[k.UserID] = key
		case k.Usage == userSigning && k.UserID == viewer:
			out.UserSigningKeys[k.UserID] = key
		}
	}
}

func loadKeys(tx *storage.Tx, users []matrix.UserID, viewer matrix.UserID) (rows keyRows, err error) {
	if rows.devices, err = tx.LoadDeviceKeys(users); err != nil {
		return rows, err
	}
	if rows.cross, err = tx.LoadCrossSigningKeys(users); err != nil {
		return rows, err
	}
	rows.sigs, err = tx.LoadKeySignatures(users, viewer)
	return rows, err
}

type signedKey struct {
	user matrix.UserID
	key  string
}

// bySignedKey groups signatures by what they are on; within a group they stay ordered by signer.
func bySignedKey(list []storage.KeySignature) map[signedKey][]storage.KeySignature {
	out := make(map[signedKey][]storage.KeySignature, len(list))
	for _, s := range list {
		k := signedKey{s.TargetID, s.TargetKey}
		out[k] = append(out[k], s)
	}
	return out
}

// assemble puts a stored key, its signatures and the device's display name together again.
func assemble(body []byte, sigs []storage.KeySignature, displayName string) jsontext.Value {
	out := make([]byte, 0, len(body)+64+160*len(sigs)+len(displayName))
	out = append(out, body[:len(body)-1]...)
	if len(sigs) > 0 {
		out = append(out, `,"signatures":{`...)
		for i, s := range sigs {
			switch {
			case i == 0:
				out = append(canonicaljson.AppendString(out, string(s.SignerID)), ':', '{')
			case s.SignerID != sigs[i-1].SignerID:
				out = append(canonicaljson.AppendString(append(out, '}', ','), string(s.SignerID)), ':', '{')
			default:
				out = append(out, ',')
			}
			out = append(canonicaljson.AppendString(out, s.SignerKey), ':')
			out = canonicaljson.AppendString(out, s.Signature)
		}
		out = append(out, '}', '}')
	}
	if displayName != "" {
		out = append(out, `,"unsigned":{"device_display_name":`...)
		out = append(canonicaljson.AppendString(out, displayName), '}')
	}
	return append(out, '}')
}
