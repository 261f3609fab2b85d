package homeserver

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"hansa/config"
	"hansa/matrix"
	"hansa/matrix/signing"
)

// loadKeys reads the signing keys of all tenants, making those that are missing: what each signs with, and the further keys of its file. A
// key that others may read is refused: it may be known to them.
func loadKeys(tenants []config.Tenant) (keys map[matrix.ServerName]signing.Key, former map[matrix.ServerName][]signing.Key, err error) {
	keys, former = map[matrix.ServerName]signing.Key{}, map[matrix.ServerName][]signing.Key{}
	seen := map[signing.PublicKey]matrix.ServerName{}
	for _, t := range tenants {
		all, err := readKeys(t.SigningKeyFile)
		if err != nil {
			return nil, nil, fmt.Errorf("signing key of %s: %w", t.Name, err)
		}
		k := all[0]
		if other, ok := seen[k.Public()]; ok {
			return nil, nil, fmt.Errorf("%s and %s have the same signing key (%s); every tenant needs its own", other, t.Name, t.SigningKeyFile)
		}
		seen[k.Public()], keys[t.Name], former[t.Name] = t.Name, k, all[1:]
	}
	return keys, former, nil
}

// LoadKey reads a signing key file, or makes it where there is none.
func LoadKey(path string) (signing.Key, error) {
	list, err := readKeys(path)
	if err != nil {
		return signing.Key{}, err
	}
	return list[0], nil
}

// readKeys reads all keys of a file; there is at least one.
func readKeys(path string) ([]signing.Key, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		k, err := makeKey(path)
		return []signing.Key{k}, err
	}
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s may be read by others (mode %04o); make it 0600, and a new key if it was exposed", path, info.Mode().Perm())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	list, err := signing.ParseKeyFile(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return list, nil
}

// makeKey writes a new key so that it is there whole or not at all, also after a power failure.
func makeKey(path string) (signing.Key, error) {
	k, err := signing.Generate(rand.Reader)
	if err != nil {
		return k, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return k, err
	}
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return k, err
	}
	_, err = f.Write(signing.FormatKeyFile(k))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Link(tmp, path) // fails where another process was faster
	}
	_ = os.Remove(tmp) // the link keeps the content
	if errors.Is(err, fs.ErrExist) {
		return LoadKey(path)
	}
	return k, err
}
