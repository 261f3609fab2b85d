package signing

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestKeyFile_ReadsBack(t *testing.T) {
	t.Parallel()
	a, b := testKey(t, "a_b1C2", 1), testKey(t, "2", 2)
	keys, err := ParseKeyFile(append([]byte("# made by hand\n\n"), FormatKeyFile(a, b)...))
	if err != nil || len(keys) != 2 || keys[0].ID != a.ID || !keys[1].Private.Equal(b.Private) {
		t.Fatalf("ParseKeyFile = %v, %v", keys, err)
	}
	if got := fmt.Sprintf("%v %+v %#v %s", a, a, a, a); strings.Contains(got, EncodeBase64(a.Private.Seed())) || !strings.HasPrefix(got, "ed25519:a_b1C2 ed25519:a_b1C2") {
		t.Errorf("a key prints as %s", got)
	}
	seed := EncodeBase64(a.Private.Seed())
	for _, bad := range []string{
		"", "# x\n", "ed25519 a", "ed25519 a " + seed + " more", "rsa a " + seed, "ed25519 a/b " + seed, "ed25519 a " + seed[1:],
		"ed25519 a " + EncodeBase64(make([]byte, 32)), "ed25519 a " + EncodeBase64(bytes.Repeat([]byte{7}, 32)),
		"ed25519 a " + seed + "\ned25519 a " + seed, "ed25519 a !" + seed[1:], "ed25519 " + strings.Repeat("a", 33) + " " + seed,
	} {
		if keys, err := ParseKeyFile([]byte(bad)); !errors.Is(err, ErrBadKey) {
			t.Errorf("ParseKeyFile(%q) = %v, %v", bad, keys, err)
		}
		if _, err := ParseKeyFile([]byte(bad)); err != nil && strings.Contains(err.Error(), seed) {
			t.Errorf("the error shows the seed: %v", err)
		}
	}
}

func TestK153_GeneratedKeysDiffer(t *testing.T) {
	t.Parallel()
	seen := map[PublicKey]bool{}
	for range 1000 {
		k, err := Generate(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if seen[k.Public()] {
			t.Fatal("the same key twice")
		}
		seen[k.Public()] = true
		if id, err := ParseKeyID(string(k.ID)); err != nil || id != k.ID {
			t.Fatalf("ParseKeyID(%s): %v", k.ID, err)
		}
	}
	if k, err := Generate(bytes.NewReader(make([]byte, 100))); err == nil {
		t.Errorf("no entropy made %s", k)
	}
	if k, err := Generate(bytes.NewReader([]byte("short"))); err == nil {
		t.Errorf("little entropy made %s", k)
	}
}

func TestK146_MalformedKeys(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"", "ed25519", "ed25519:", "ed25519:a/b", "ed25519:a b", "ED25519:a", "rsa:1", "ed25519:a:b", "ed25519:é"} {
		if got, err := ParseKeyID(id); !errors.Is(err, ErrBadKey) {
			t.Errorf("ParseKeyID(%q) = %v, %v", id, got, err)
		}
	}
	good := testKey(t, "1", 9).Public()
	for _, s := range []string{good.String(), good.String() + "="} {
		if got, err := ParsePublicKey(s); err != nil || got != good {
			t.Errorf("ParsePublicKey(%s) = %v, %v", s, got, err)
		}
	}
	for _, s := range []string{
		"", "A", EncodeBase64(good[:31]), EncodeBase64(append(good[:], 0)), good.String() + "==", good.String()[:20] + "\n" + good.String()[20:],
		base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0xfb}, 32)), "  " + good.String(),
		EncodeBase64(append([]byte{0xf0}, append(bytes.Repeat([]byte{0xff}, 30), 0x7f)...)),
	} {
		if got, err := ParsePublicKey(s); !errors.Is(err, ErrBadKey) {
			t.Errorf("ParsePublicKey(%q) = %v, %v", s, got, err)
		}
	}
}

func TestK146_SmallOrderKeys(t *testing.T) {
	t.Parallel()
	ff := strings.Repeat("ff", 30)
	points := []string{
		strings.Repeat("00", 32), "01" + strings.Repeat("00", 31), "ec" + ff + "7f", "ed" + ff + "7f", "ee" + ff + "7f",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	}
	for _, point := range points {
		for _, sign := range []byte{0, 0x80} {
			var p PublicKey
			if _, err := fmt.Sscanf(point, "%x", (*hexBytes)(&p)); err != nil {
				t.Fatal(err)
			}
			p[31] |= sign
			if got, err := ParsePublicKey(EncodeBase64(p[:])); err == nil {
				t.Errorf("ParsePublicKey accepts %x", got)
			}
			// R = the neutral point and S = 0 is a signature of about every eighth message under such a key.
			forged := make([]byte, 64)
			forged[0] = 1
			for i := range 200 {
				message := []byte{byte(i)}
				if p.Verify(message, forged) {
					t.Errorf("%x verifies a forgery of %x", p, message)
				}
			}
		}
	}
}

type hexBytes PublicKey

func (h *hexBytes) Scan(state fmt.ScanState, _ rune) error {
	token, err := state.Token(true, nil)
	if err != nil {
		return err
	}
	for i := range h {
		if _, err := fmt.Sscanf(string(token[2*i:2*i+2]), "%02x", &h[i]); err != nil {
			return err
		}
	}
	return nil
}

func FuzzKey(f *testing.F) {
	f.Add([]byte("ed25519 a_b1C2 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1\n"))
	f.Add([]byte("ed25519:abc"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if keys, err := ParseKeyFile(data); err == nil {
			again, err := ParseKeyFile(FormatKeyFile(keys...))
			if err != nil || len(again) != len(keys) || again[0].ID != keys[0].ID || !again[0].Private.Equal(keys[0].Private) {
				t.Fatalf("ParseKeyFile(%q) does not read back: %v", data, err)
			}
		}
		if p, err := ParsePublicKey(string(data)); err == nil {
			if again, err := ParsePublicKey(p.String()); err != nil || again != p {
				t.Fatalf("ParsePublicKey(%q) does not read back: %v", data, err)
			}
		}
		_, _ = ParseKeyID(string(data))
	})
}
