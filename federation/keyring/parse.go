package keyring

import (
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"hansa/federation"
	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/signing"
	"hansa/storage"
)

// ErrBadAnswer is wrapped by every error about an answer with keys.
var ErrBadAnswer = errors.New("keyring: bad answer with server keys")

// answer is what a server says about its keys, checked.
type answer struct {
	server     matrix.ServerName
	raw        []byte // canonical
	validUntil int64
	keys       []storage.ServerKey
}

// parseAnswer checks what is said to be the answer of a server about its keys. Keys that are malformed are left out; at least one must
// be current and have signed the answer, and no current key may have signed it wrongly.
//
// spec: server-server-api#get_matrixkeyv2server
func parseAnswer(body []byte, server, source matrix.ServerName, now time.Time) (*answer, error) {
	raw, err := canonicaljson.Append(nil, body, true)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadAnswer, err)
	}
	var in struct {
		federation.ServerKeys
		ValidUntilTS *int64 `json:"valid_until_ts"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadAnswer, err)
	}
	if in.ServerName != server {
		return nil, fmt.Errorf("%w: it is about %.80q instead of %s", ErrBadAnswer, in.ServerName, server)
	}
	if in.ValidUntilTS == nil || len(in.VerifyKeys) > maxVerify || len(in.OldVerifyKeys) > maxOld {
		return nil, fmt.Errorf("%w: no valid_until_ts, or too many keys", ErrBadAnswer)
	}
	a := &answer{server: server, raw: raw, validUntil: min(*in.ValidUntilTS, now.Add(maxValidity).UnixMilli())}
	signed := 0
	for name, k := range in.VerifyKeys {
		id, public, ok := parseKey(name, k.Key)
		if !ok {
			continue
		}
		switch err := signing.VerifyJSON(raw, server, id, public); {
		case err == nil:
			signed++
		case !errors.Is(err, signing.ErrNoSignature):
			return nil, fmt.Errorf("%w: %w", ErrBadAnswer, err)
		}
		a.keys = append(a.keys, storage.ServerKey{Server: server, KeyID: string(id), Public: public[:], ValidUntil: a.validUntil, Source: source, FetchedTS: now.UnixMilli()})
	}
	if signed == 0 {
		return nil, fmt.Errorf("%w: none of the keys of %s has signed it", ErrBadAnswer, server)
	}
	for name, k := range in.OldVerifyKeys {
		id, public, ok := parseKey(name, k.Key)
		if _, current := in.VerifyKeys[name]; !ok || current || k.ExpiredTS <= 0 {
			continue
		}
		a.keys = append(a.keys, storage.ServerKey{Server: server, KeyID: string(id), Public: public[:], ValidUntil: min(k.ExpiredTS, now.Add(maxValidity).UnixMilli()),
			Old: true, Source: source, FetchedTS: now.UnixMilli()})
	}
	return a, nil
}

func parseKey(name, value string) (signing.KeyID, signing.PublicKey, bool) {
	id, err := signing.ParseKeyID(name)
	if err != nil || id == signing.PolicyServerKeyID {
		return "", signing.PublicKey{}, false
	}
	public, err := signing.ParsePublicKey(value)
	return id, public, err == nil
}
