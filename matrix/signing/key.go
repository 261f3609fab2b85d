// Package signing makes and checks the signatures of Matrix: of JSON objects, of events, and of federation requests.
//
// A Key signs for one server; a PublicKey has passed every check that makes it fit to verify with. Keys and signatures are
// read strictly: standard base64 (padding is accepted), exact lengths, no points of small order, no other spelling of a
// number that is one already. The arithmetic is that of curve25519-voi, set to accept what crypto/ed25519 accepts, at half
// its cost; a test compares the two. Signatures are not verified in batches, because a batch would also accept crafted
// signatures that other servers refuse, and such an event would split a room.
//
// The package does not know which keys belong to which server or how long they are valid; that is the keyring's.
// A signature says nothing about what was signed, so there is one function per kind of object and none that signs
// whatever a client hands in.
//
// spec: appendices#signing-json
// spec: server-server-api#signing-events
// spec: server-server-api#request-authentication
package signing

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	voi "github.com/oasisprotocol/curve25519-voi/primitives/ed25519"
)

// Algorithm is the one signing algorithm there is.
const Algorithm = "ed25519"

// PolicyServerKeyID is the key ID that is reserved for policy servers; it never counts as a signature of the origin.
//
// spec: server-server-api#validating-policy-server-signatures
const PolicyServerKeyID KeyID = "ed25519:policy_server"

// maxKeyVersion is the longest version of a key; event.Build reserves room for key IDs of that length.
const maxKeyVersion = 32

// ErrBadKey is wrapped by every error about the form of a key or a key ID.
var ErrBadKey = errors.New("signing: malformed key")

// KeyID is an algorithm and a version, as in ed25519:a_b1c2.
type KeyID string

// ParseKeyID checks the form of a key ID of an algorithm that this server understands.
//
// spec: server-server-api#retrieving-server-keys
func ParseKeyID(s string) (KeyID, error) {
	version, ok := strings.CutPrefix(s, Algorithm+":")
	if !ok || !isVersion(version, 255) {
		return "", fmt.Errorf("%w: key ID %.80q", ErrBadKey, s)
	}
	return KeyID(s), nil
}

func isVersion(s string, most int) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_') {
			return false
		}
	}
	return s != "" && len(s) <= most
}

// Key is a private key of one server. It prints as its ID only.
type Key struct {
	ID      KeyID
	Private ed25519.PrivateKey
}

// String is the ID, so that no log ever shows the key.
func (k Key) String() string { return string(k.ID) }

// GoString is the ID too.
func (k Key) GoString() string { return string(k.ID) }

// Public is the key that verifies what k signs.
func (k Key) Public() PublicKey {
	var p PublicKey
	copy(p[:], k.Private[ed25519.SeedSize:])
	return p
}

// Sign signs bytes and returns the signature in unpadded base64.
func (k Key) Sign(message []byte) string {
	return base64.RawStdEncoding.EncodeToString(voi.Sign(voi.PrivateKey(k.Private), message))
}

// Generate makes a key with a random version from a source of randomness, which must be crypto/rand outside of tests.
func Generate(random io.Reader) (Key, error) {
	var b [ed25519.SeedSize + 6]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return Key{}, fmt.Errorf("read random bytes: %w", err)
	}
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	version := []byte("a_")
	for _, c := range b[ed25519.SeedSize:] {
		version = append(version, letters[int(c)%len(letters)])
	}
	return newKey(string(version), b[:ed25519.SeedSize])
}

func newKey(version string, seed []byte) (Key, error) {
	if !isVersion(version, maxKeyVersion) {
		return Key{}, fmt.Errorf("%w: version %.80q", ErrBadKey, version)
	}
	if len(seed) != ed25519.SeedSize {
		return Key{}, fmt.Errorf("%w: the seed of version %s has %d bytes", ErrBadKey, version, len(seed))
	}
	if bytes.Count(seed, seed[:1]) == len(seed) {
		return Key{}, fmt.Errorf("%w: the seed of version %s is one byte repeated", ErrBadKey, version)
	}
	return Key{ID: KeyID(Algorithm + ":" + version), Private: ed25519.NewKeyFromSeed(seed)}, nil
}

// ParseKeyFile reads the keys of a key file, one `ed25519 <version> <base64 seed>` per line; blank lines and lines that
// begin with # are skipped. There is at least one key, and the first is the one to sign with. This is the form that
// Synapse writes.
func ParseKeyFile(data []byte) ([]Key, error) {
	var keys []Key
	have := map[KeyID]bool{}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) != 3 || fields[0] != Algorithm {
			return nil, fmt.Errorf("%w: line %d is not `%s <version> <seed>`", ErrBadKey, len(keys)+1, Algorithm)
		}
		seed, err := DecodeBase64(fields[2])
		if err != nil {
			return nil, fmt.Errorf("%w: the seed of version %.80q is not base64", ErrBadKey, fields[1])
		}
		key, err := newKey(fields[1], seed)
		if err != nil {
			return nil, err
		}
		if have[key.ID] {
			return nil, fmt.Errorf("%w: version %s occurs twice", ErrBadKey, fields[1])
		}
		have[key.ID] = true
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%w: the key file holds no key", ErrBadKey)
	}
	return keys, nil
}

// FormatKeyFile writes what ParseKeyFile reads. It is a secret.
func FormatKeyFile(keys ...Key) []byte {
	var b []byte
	for _, k := range keys {
		b = fmt.Appendf(b, "%s %s %s\n", Algorithm, k.ID[len(Algorithm)+1:], EncodeBase64(k.Private.Seed()))
	}
	return b
}

// EncodeBase64 is unpadded base64 in the standard alphabet.
//
// spec: appendices#unpadded-base64
func EncodeBase64(b []byte) string { return base64.RawStdEncoding.EncodeToString(b) }

// DecodeBase64 reads base64 in the standard alphabet, with or without its padding, and nothing looser: no line breaks, no
// half padding. Stray bits at the end are ignored, because the specification's own test key has them.
//
// spec: appendices#unpadded-base64
func DecodeBase64(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, base64.CorruptInputError(0)
	}
	encoding := base64.RawStdEncoding
	if strings.HasSuffix(s, "=") {
		encoding = base64.StdEncoding
	}
	return encoding.DecodeString(s)
}

// PublicKey verifies signatures. Values come from ParsePublicKey or Key.Public.
type PublicKey [ed25519.PublicKeySize]byte

// ParsePublicKey reads a public key in base64 and refuses every one that could verify what nobody signed.
func ParsePublicKey(s string) (PublicKey, error) {
	var p PublicKey
	b, err := DecodeBase64(s)
	if err != nil || len(b) != len(p) {
		return p, fmt.Errorf("%w: public key %.60q is not the base64 of %d bytes", ErrBadKey, s, len(p))
	}
	copy(p[:], b)
	if !isCanonicalPoint(p) || isSmallOrder(p) {
		return PublicKey{}, fmt.Errorf("%w: public key %s is a weak point", ErrBadKey, s)
	}
	return p, nil
}

// String is the key in unpadded base64.
func (p PublicKey) String() string { return EncodeBase64(p[:]) }

// Verify tells whether signature is the one of message. It is at least as strict as other implementations are: what
// libsodium refuses (points of small order) is refused here too.
func (p PublicKey) Verify(message, signature []byte) bool {
	if len(signature) != ed25519.SignatureSize || isSmallOrder([32]byte(signature[:32])) || isSmallOrder(p) {
		return false
	}
	return voi.VerifyWithOptions(p[:], message, signature, &voi.Options{Verify: voi.VerifyOptionsStdLib})
}

// isCanonicalPoint tells whether y is below the prime 2^255-19.
func isCanonicalPoint(b [32]byte) bool {
	if b[31]&0x7f != 0x7f || b[0] < 0xed {
		return true
	}
	for _, c := range b[1:31] {
		if c != 0xff {
			return true
		}
	}
	return false
}

// isSmallOrder tells whether an encoded point is one of the eight whose multiples are only themselves, in any spelling.
// With such a key a signature can be valid for messages that nobody signed.
func isSmallOrder(b [32]byte) bool {
	const ff = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
	b[31] &= 0x7f // the sign of x
	switch string(b[:]) {
	case string(make([]byte, 32)),
		"\x01" + string(make([]byte, 31)),
		"\x26\xe8\x95\x8f\xc2\xb2\x27\xb0\x45\xc3\xf4\x89\xf2\xef\x98\xf0\xd5\xdf\xac\x05\xd3\xc6\x33\x39\xb1\x38\x02\x88\x6d\x53\xfc\x05",
		"\xc7\x17\x6a\x70\x3d\x4d\xd8\x4f\xba\x3c\x0b\x76\x0d\x10\x67\x0f\x2a\x20\x53\xfa\x2c\x39\xcc\xc6\x4e\xc7\xfd\x77\x92\xac\x03\x7a",
		"\xec" + ff + "\x7f", "\xed" + ff + "\x7f", "\xee" + ff + "\x7f":
		return true
	}
	return false
}
