package homeserver

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hansa/config"
	"hansa/matrix/signing"
)

func TestK154_KeyFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "keys", "acme.example.key")
	made, err := LoadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("a new key file has mode %v, %v", info.Mode(), err)
	}
	if again, err := LoadKey(path); err != nil || again.Public() != made.Public() {
		t.Errorf("read again: %v, %v", again, err)
	}
	for _, mode := range []os.FileMode{0o644, 0o640, 0o604, 0o660, 0o602} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKey(path); err == nil || !strings.Contains(err.Error(), "0600") {
			t.Errorf("mode %o: %v, want an error that says what to do", mode, err)
		}
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"empty": "", "garbage": "not a key\n", "zero": "ed25519 a_x " + signing.EncodeBase64(make([]byte, 32)) + "\n", "short": "ed25519 a_x AAAA\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKey(path); err == nil {
			t.Errorf("%s: a key was read", name)
		}
	}
	// The old key below the new one, and two tenants with one key.
	next, err := signing.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Join([][]byte{signing.FormatKeyFile(next), signing.FormatKeyFile(made)}, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	tenant := config.Tenant{Name: "acme.example", SigningKeyFile: path}
	keys, former, err := loadKeys([]config.Tenant{tenant})
	if err != nil || keys["acme.example"].Public() != next.Public() || len(former["acme.example"]) != 1 || former["acme.example"][0].Public() != made.Public() {
		t.Errorf("keys %v, former %v, %v", keys, former, err)
	}
	if _, _, err := loadKeys([]config.Tenant{tenant, {Name: "globex.example", SigningKeyFile: path}}); err == nil {
		t.Error("two tenants may have one key")
	}
}
