package account

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"

	"hansa/homeserver/ratelimit"
	"hansa/matrix"
)

const (
	// maxPassword is the longest password in bytes. Longer ones are refused, never cut.
	maxPassword = 512
	// minPassword is the shortest one that may be set.
	minPassword = 8
	// maxWaiting is how many requests may wait for their password to be hashed.
	maxWaiting = 512
)

// Hashing is what a password costs: memory in KiB, passes and lanes of argon2id, and how many are hashed at a time.
type Hashing struct {
	MemoryKiB, Passes uint32
	Lanes             uint8
	Parallel          int
}

// DefaultHashing is one of the settings that OWASP recommends, the one of 12 MiB, three passes and one lane. As many are hashed at
// a time as there are processors, at most four, so that logins cannot eat the memory of the server.
func DefaultHashing() Hashing {
	return Hashing{MemoryKiB: 12 * 1024, Passes: 3, Lanes: 1, Parallel: min(4, runtime.GOMAXPROCS(0))}
}

// hasher hashes passwords, a few at a time.
type hasher struct {
	cost    Hashing
	rand    io.Reader
	slots   chan struct{}
	waiting atomic.Int64
	dummy   string // the hash that unknown users are compared with
}

func newHasher(cost Hashing, rand io.Reader) (*hasher, error) {
	if cost == (Hashing{}) {
		cost = DefaultHashing()
	}
	if cost.MemoryKiB < 8*uint32(cost.Lanes) || cost.Passes == 0 || cost.Lanes == 0 || cost.Parallel <= 0 {
		return nil, fmt.Errorf("account: cost of passwords %+v is not possible", cost)
	}
	h := &hasher{cost: cost, rand: rand, slots: make(chan struct{}, cost.Parallel)}
	var err error
	h.dummy, err = h.hash(context.Background(), "nobody has this password")
	return h, err
}

// enter waits for one of the slots.
func (h *hasher) enter(ctx context.Context) (leave func(), err error) {
	if h.waiting.Add(1) > maxWaiting {
		h.waiting.Add(-1)
		return nil, ratelimit.TooMany(time.Second)
	}
	defer h.waiting.Add(-1)
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// hash returns the encoded hash of a password.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	salt := make([]byte, 16)
	if _, err := io.ReadFull(h.rand, salt); err != nil {
		return "", err
	}
	leave, err := h.enter(ctx)
	if err != nil {
		return "", err
	}
	defer leave()
	key := argon2.IDKey([]byte(password), salt, h.cost.Passes, h.cost.MemoryKiB, h.cost.Lanes, 32)
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.cost.MemoryKiB, h.cost.Passes, h.cost.Lanes,
		b64.EncodeToString(salt), b64.EncodeToString(key)), nil
}

var errEncoding = errors.New("account: stored password hash has an unknown form")

// verify compares a password with an encoded hash. An empty one never matches, and takes as long as any other.
func (h *hasher) verify(ctx context.Context, encoded, password string) (bool, error) {
	real := encoded != ""
	if !real {
		encoded = h.dummy
	}
	var version int
	var cost Hashing
	parts := strings.Split(encoded, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, errEncoding
	}
	if _, err := fmt.Sscanf(parts[2], "v=%d", &version); err != nil || version != argon2.Version {
		return false, errEncoding
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &cost.MemoryKiB, &cost.Passes, &cost.Lanes); err != nil {
		return false, errEncoding
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	want, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(want) < 16 || cost.Passes == 0 || cost.Lanes == 0 || cost.MemoryKiB > 1<<20 || cost.Passes > 64 {
		return false, errEncoding
	}
	leave, err := h.enter(ctx)
	if err != nil {
		return false, err
	}
	defer leave()
	got := argon2.IDKey([]byte(password), salt, cost.Passes, cost.MemoryKiB, cost.Lanes, uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1 && real, nil
}

// checkLength refuses a password that cannot be one, before anything is computed from it.
func checkLength(password string) error {
	if len(password) > maxPassword {
		return matrix.InvalidParam("A password may have at most %d bytes.", maxPassword)
	}
	return nil
}

// checkNew refuses a password that may not be set.
func checkNew(password string) error {
	if err := checkLength(password); err != nil {
		return err
	}
	if len([]rune(password)) < minPassword {
		return matrix.Errorf(400, matrix.CodeWeakPassword, "A password must have at least %d characters.", minPassword)
	}
	return nil
}
