package adminapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// maxSocketPath is the longest path that a unix socket can be bound to.
const maxSocketPath = 100

// ListenSocket listens on a unix socket that only this user can open. A socket that a server which ended badly left behind is
// replaced; one that a server answers on is an error.
func ListenSocket(ctx context.Context, path string) (net.Listener, error) {
	if c, err := DialSocket(ctx, path); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("another server answers on %s: two servers cannot share a data directory", path)
	}
	// The socket is made where nobody else can reach it and moved into place when its mode is set.
	private, err := os.MkdirTemp(filepath.Dir(path), ".admin-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(private) }() // empty by now
	fresh := filepath.Join(private, "s")
	bound, release, err := shortPath(fresh)
	if err != nil {
		return nil, err
	}
	defer release()
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", bound)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	info, err := os.Lstat(fresh)
	if err == nil {
		err = os.Chmod(fresh, 0o600)
	}
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &socket{Listener: l, path: path, made: info}, nil
}

// socket removes its file when it is closed, unless it is somebody else's by then.
type socket struct {
	net.Listener
	path string
	made fs.FileInfo
	once sync.Once
}

func (s *socket) Close() error {
	s.once.Do(func() {
		if info, err := os.Lstat(s.path); err == nil && os.SameFile(info, s.made) {
			_ = os.Remove(s.path) // a socket that stays is replaced by the next server
		}
	})
	return s.Listener.Close()
}

// DialSocket connects to the server that listens on a unix socket.
func DialSocket(ctx context.Context, path string) (net.Conn, error) {
	short, release, err := shortPath(path)
	if err != nil {
		return nil, err
	}
	defer release()
	return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", short)
}

// shortPath is a name for path that a unix socket can have: path itself, or where that is too long the same file seen through an
// open directory. release closes that.
func shortPath(path string) (short string, release func(), err error) {
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	through := fmt.Sprintf("/proc/self/fd/%d", dir.Fd())
	if _, err := os.Stat(through); err != nil {
		return "", nil, errors.Join(fmt.Errorf("the path of the socket %s is too long; choose a shorter data_dir", path), dir.Close())
	}
	return filepath.Join(through, filepath.Base(path)), func() { _ = dir.Close() }, nil
}
