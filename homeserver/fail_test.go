package homeserver_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"hansa/config"
	"hansa/homeserver"
	"hansa/homeserver/account"
	"hansa/storage"
	"hansa/storage/storagetest"
)

// A server whose disk failed ends, with an error, so that whoever watches it starts it anew.
func TestD451_ServerEndsWhenTheDiskFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := config.New("acme.example")
	cfg.DataDir = filepath.Join(dir, "data")
	cfg.Database = "sqlite:" + filepath.Join(dir, "data", "hansa.db")
	cfg.Listen = config.Listen{Client: "127.0.0.1:0"}
	cfg.Policy.Bundles = []string{filepath.Join(dir, "policy")}
	cfg.Media.Path = filepath.Join(dir, "media")
	cfg.Tenants[0].SigningKeyFile = filepath.Join(dir, "keys", "acme.key")
	if err := os.MkdirAll(cfg.Policy.Bundles[0], 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := homeserver.New(t.Context(), cfg, homeserver.Deps{Log: storagetest.Quiet(), Version: "test", PolicyDeadline: time.Minute,
		Hashing: account.Hashing{MemoryKiB: 64, Passes: 1, Lanes: 1, Parallel: 1}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(context.Background()) }()
	select {
	case <-s.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	s.DB.Fail(errors.New("input/output error"))
	select {
	case err := <-done:
		if !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("Run = %v, want ErrUnavailable", err)
		}
	case <-time.After(time.Minute):
		t.Error("the server goes on")
	}
}
