package adminapi

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestListenSocket(t *testing.T) {
	t.Parallel()
	long := filepath.Join(t.TempDir(), strings.Repeat("a-rather-long-name/", 8))
	if err := os.MkdirAll(long, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"short": t.TempDir(), "long": long} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(dir, "admin.sock")
			// What a server that was killed left behind.
			short, release, err := shortPath(path)
			if err != nil {
				t.Fatal(err)
			}
			dead, err := net.Listen("unix", short)
			if err != nil {
				t.Fatal(err)
			}
			dead.(*net.UnixListener).SetUnlinkOnClose(false)
			if err := dead.Close(); err != nil {
				t.Fatal(err)
			}
			release()

			l, err := ListenSocket(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Lstat(path)
			if err != nil || info.Mode().Perm() != 0o600 || info.Mode()&os.ModeSocket == 0 {
				t.Errorf("the socket is %v (%v), want one with mode 0600", info.Mode(), err)
			}
			c, err := DialSocket(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			_ = c.Close()
			if second, err := ListenSocket(t.Context(), path); err == nil {
				_ = second.Close()
				t.Error("a second server took the socket")
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(path); !os.IsNotExist(err) {
				t.Errorf("the socket stays: %v", err)
			}
			rest, err := os.ReadDir(dir)
			if err != nil || len(rest) > 0 {
				t.Errorf("something stays: %v %v", rest, err)
			}
		})
	}
}
