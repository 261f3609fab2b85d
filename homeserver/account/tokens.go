package account

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"hansa/matrix"
)

// A token is a prefix that tells people and secret scanners what it is, 256 random bits, and a checksum that keeps typing errors
// and noise away from the database. The database holds the SHA-256 of it.
const (
	accessPrefix  = "hst_"
	refreshPrefix = "hrt_"
	sumLength     = 6 // base64 of a CRC-32
	tokenLength   = len(accessPrefix) + 43 + 1 + sumLength
)

// tokenHash is the name of a token in the database and in caches.
type tokenHash [sha256.Size]byte

// newToken makes a token and its hash.
func newToken(rand io.Reader, prefix string) (string, tokenHash, error) {
	b := make([]byte, 32)
	if _, err := io.ReadFull(rand, b); err != nil {
		return "", tokenHash{}, fmt.Errorf("make a token: %w", err)
	}
	t := prefix + base64.RawURLEncoding.EncodeToString(b)
	t += "_" + checksum(t)
	return t, sha256.Sum256([]byte(t)), nil
}

func checksum(s string) string { return string(appendSum(nil, []byte(s))) }

func appendSum(dst, b []byte) []byte {
	n := crc32.ChecksumIEEE(b)
	return base64.RawURLEncoding.AppendEncode(dst, []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// hashToken returns the hash of a token, or false for what cannot be one.
func hashToken(token, prefix string) (tokenHash, bool) {
	const body = tokenLength - sumLength - 1
	if len(token) != tokenLength || !strings.HasPrefix(token, prefix) || token[body] != '_' {
		return tokenHash{}, false
	}
	var b [tokenLength]byte
	var sum [sumLength]byte
	copy(b[:], token)
	if string(appendSum(sum[:0], b[:body])) != token[body+1:] {
		return tokenHash{}, false
	}
	return sha256.Sum256(b[:]), true
}

// newDeviceID makes the name of a device: ten capital letters.
func newDeviceID(rand io.Reader) (matrix.DeviceID, error) {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	b, out := make([]byte, 32), make([]byte, 0, 10)
	for len(out) < 10 {
		if _, err := io.ReadFull(rand, b); err != nil {
			return "", fmt.Errorf("make a device ID: %w", err)
		}
		for _, c := range b {
			if c < 26*9 && len(out) < 10 { // no letter is more frequent than another
				out = append(out, letters[c%26])
			}
		}
	}
	return matrix.DeviceID(out), nil
}
