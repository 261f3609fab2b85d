package homeserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"hansa/config"
	"hansa/storage/storagetest"
)

// pair writes a self-signed certificate and its key.
func pair(t *testing.T, serial int64, cert, key string, at time.Time) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: private}} {
		if path == "" {
			continue
		}
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
}

// A renewed certificate is taken once it and its key fit; until then the old one stays.
func TestCertificates_AreRenewed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "crt"), filepath.Join(dir, "key")
	now := time.Now()
	c := &certificates{cert: cert, key: key, now: func() time.Time { return now }, log: storagetest.Quiet()}
	if _, err := c.load(); err == nil {
		t.Error("a missing file is no error")
	}
	serial := func() int64 {
		t.Helper()
		p, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(p.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return leaf.SerialNumber.Int64()
	}
	now = now.Add(2 * certificateAge)
	pair(t, 1, cert, key, now)
	if got := serial(); got != 1 {
		t.Errorf("first: %d", got)
	}
	pair(t, 2, cert, "", now.Add(time.Second)) // its key does not fit
	if got := serial(); got != 1 {
		t.Errorf("right after: %d", got)
	}
	now = now.Add(2 * certificateAge)
	if got := serial(); got != 1 {
		t.Errorf("with a key that does not fit: %d", got)
	}
	pair(t, 3, cert, key, now.Add(2*time.Second))
	now = now.Add(2 * certificateAge)
	if got := serial(); got != 3 {
		t.Errorf("renewed: %d", got)
	}
}

// .well-known names the host of the public address, and the port that federation is on.
func TestFedTenants_Delegate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ public, listen, want string }{
		{"https://matrix.acme.example", "", "matrix.acme.example:443"},
		{"https://matrix.acme.example:8443", "", "matrix.acme.example:8443"},
		{"https://matrix.acme.example", "0.0.0.0:8448", "matrix.acme.example:8448"},
		{"https://[2001:db8::1]:8443", "", "[2001:db8::1]:8443"},
		{"", "", ""},
	} {
		cfg := config.New("acme.example")
		cfg.Tenants[0].PublicURL, cfg.Listen.Federation = c.public, c.listen
		if got := (&Server{Config: cfg}).fedTenants()[0].Delegate; got != c.want {
			t.Errorf("%q with federation on %q: %q, want %q", c.public, c.listen, got, c.want)
		}
	}
}
