package signing

import (
	"bytes"
	"errors"
	"fmt"
	"iter"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
)

// Why a check failed.
var (
	ErrNoSignature  = errors.New("signing: no such signature")
	ErrBadSignature = errors.New("signing: the signature does not verify")
)

// SignJSON adds a signature to an object and returns it in canonical form. Signatures that are there already stay, and so
// does unsigned, which is not covered.
//
// spec: appendices#signing-details
func SignJSON(object []byte, server matrix.ServerName, key Key) ([]byte, error) {
	object, err := canonicaljson.Append(nil, object, true)
	if err != nil {
		return nil, err
	}
	if object[0] != '{' {
		return nil, matrix.BadJSON("Only JSON objects can be signed.")
	}
	object, signatures := canonicaljson.Cut(object, "signatures")
	object, unsigned := canonicaljson.Cut(object, "unsigned")
	signatures = merge(signatures, server, key.ID, key.Sign(object))
	object = canonicaljson.Set(object, "signatures", signatures)
	if unsigned != nil {
		object = canonicaljson.Set(object, "unsigned", unsigned)
	}
	return object, nil
}

// VerifyJSON checks the signature of a server by one key on an object in any spelling. It is for objects that are no
// events, such as answers with server keys.
//
// spec: appendices#checking-for-a-signature
func VerifyJSON(object []byte, server matrix.ServerName, id KeyID, key PublicKey) error {
	object, err := canonicaljson.AppendWithout(nil, object, false, "unsigned")
	if err != nil {
		return err
	}
	object, signatures := canonicaljson.Cut(object, "signatures")
	signature, err := find(signatures, server, id)
	if err != nil {
		return err
	}
	if !key.Verify(object, signature) {
		return fmt.Errorf("%w: %s of %s", ErrBadSignature, id, server)
	}
	return nil
}

// Signatures walks over the signatures of one server in a canonical signatures object: those of the known algorithm with
// a well-formed key ID. A signature that cannot be read is nil, which verifies with no key. The key ID of policy servers
// is left out.
func Signatures(signatures []byte, server matrix.ServerName) iter.Seq2[KeyID, []byte] {
	return func(yield func(KeyID, []byte) bool) {
		for k, v := range canonicaljson.Members(ofServer(signatures, server)) {
			id, err := ParseKeyID(string(k))
			if err != nil || id == PolicyServerKeyID {
				continue
			}
			if !yield(id, decodeSignature(v)) {
				return
			}
		}
	}
}

func ofServer(signatures []byte, server matrix.ServerName) []byte {
	v, _ := canonicaljson.Find(signatures, string(server))
	return v
}

// decodeSignature reads a signature in JSON, nil if it is none.
func decodeSignature(value []byte) []byte {
	s, _ := canonicaljson.String(value)
	b, err := DecodeBase64(s)
	if err != nil || len(b) != 64 {
		return nil
	}
	return b
}

func find(signatures []byte, server matrix.ServerName, id KeyID) ([]byte, error) {
	v, ok := canonicaljson.Find(ofServer(signatures, server), string(id))
	if !ok {
		return nil, fmt.Errorf("%w: %s of %s", ErrNoSignature, id, server)
	}
	b := decodeSignature(v)
	if b == nil {
		return nil, fmt.Errorf("%w: %s of %s is not the base64 of 64 bytes", ErrBadSignature, id, server)
	}
	return b, nil
}

// merge returns a canonical signatures object with one more signature.
func merge(signatures []byte, server matrix.ServerName, id KeyID, signature string) []byte {
	if len(signatures) == 0 {
		return []byte(`{"` + string(server) + `":{"` + string(id) + `":"` + signature + `"}}`)
	}
	value := bytes.Join([][]byte{{'"'}, []byte(signature), {'"'}}, nil)
	return canonicaljson.Set(signatures, string(server), canonicaljson.Set(ofServer(signatures, server), string(id), value))
}

// MergeSignatures returns the signatures of both objects; where both have one for the same key, that of base stays. It is
// for events that come back from another server with a signature added.
func MergeSignatures(base, more []byte) []byte {
	for server, keys := range canonicaljson.Members(more) {
		name := string(server)
		if _, err := matrix.ParseServerName(name); err != nil {
			continue
		}
		own := ofServer(base, matrix.ServerName(name))
		for k, v := range canonicaljson.Members(keys) {
			if _, have := canonicaljson.Find(own, string(k)); !have && bytes.IndexByte(k, '\\') < 0 && v[0] == '"' {
				own = canonicaljson.Set(own, string(k), v)
			}
		}
		if own != nil {
			base = canonicaljson.Set(base, name, own)
		}
	}
	return base
}
