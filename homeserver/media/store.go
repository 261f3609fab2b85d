package media

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"hansa/matrix"
)

// errDamaged says that a file is missing or does not hold what was put there.
var errDamaged = errors.New("media: the file is damaged")

const (
	// trustFor is how long a file that was compared with its hash is believed, maxTrusted how many of them are known.
	trustFor   = 10 * time.Minute
	maxTrusted = 4096
	// youngFile is how old a file without a row has to be to count as an orphan.
	youngFile = 24 * time.Hour
)

// store is the folder with the files: `tmp` for what is on its way, and per tenant folders named by the first two letters. Copies of
// media of other servers are in such folders below `remote`.
type store struct {
	root   string
	now    func() time.Time
	hosted map[matrix.ServerName]bool

	mu      sync.Mutex
	trusted map[string]time.Time // guarded by mu: when a file was compared with its hash
}

func newStore(root string, now func() time.Time) (*store, error) {
	st := &store{root: root, now: now, hosted: map[matrix.ServerName]bool{}, trusted: map[string]time.Time{}}
	return st, makeDir(filepath.Join(root, "tmp"))
}

// tenantDir is the folder of a tenant. Server names hold letters, digits, dots, dashes, colons and brackets.
func (st *store) tenantDir(tenant matrix.ServerName) string {
	if !st.hosted[tenant] {
		return filepath.Join(st.root, remoteDir, folderName().Replace(string(tenant)))
	}
	name := strings.NewReplacer(":", "_", "[", "_", "]", "_").Replace(string(tenant))
	if strings.HasPrefix(name, ".") || name == "tmp" || name == remoteDir {
		name = "_" + name
	}
	return filepath.Join(st.root, name)
}

// remoteDir is the folder of the folders of other servers, whose names can be read back.
const remoteDir = "remote"

func folderName() *strings.Replacer { return strings.NewReplacer(":", "_", "[", "(", "]", ")") }

func serverName() *strings.Replacer { return strings.NewReplacer("_", ":", "(", "[", ")", "]") }

// servers are the other servers that have a folder.
func (st *store) servers() ([]matrix.ServerName, error) {
	dirs, err := os.ReadDir(filepath.Join(st.root, remoteDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var out []matrix.ServerName
	for _, d := range dirs {
		if name, perr := matrix.ParseServerName(serverName().Replace(d.Name())); perr == nil && d.IsDir() && !st.hosted[name] {
			out = append(out, name)
		}
	}
	return out, err
}

func (st *store) path(tenant matrix.ServerName, file string) string {
	return filepath.Join(st.tenantDir(tenant), file[:2], file)
}

// makeDir makes a folder and those above it, each durable.
func makeDir(dir string) error {
	if info, err := os.Stat(dir); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s is no folder", dir)
		}
		return nil
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// draft is a file on its way. Exactly one of keep and drop ends it.
type draft struct {
	*os.File
	st *store
}

func (st *store) create() (*draft, error) {
	f, err := os.OpenFile(filepath.Join(st.root, "tmp", newID()), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	return &draft{f, st}, nil
}

func (d *draft) drop() {
	_ = d.Close()           // nobody wants the content
	_ = os.Remove(d.Name()) // what stays is swept up later
}

// keep gives a draft its name, and returns when all of it will survive a power cut.
func (d *draft) keep(tenant matrix.ServerName, file string) error {
	path := d.st.path(tenant, file)
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		d.drop()
		return err
	}
	if err := makeDir(filepath.Dir(path)); err != nil {
		d.drop()
		return err
	}
	if err := os.Rename(d.Name(), path); err != nil {
		d.drop()
		return err
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		_ = os.Remove(path)
		return err
	}
	return nil
}

// open opens a file that must have this size and hash.
func (st *store) open(ctx context.Context, tenant matrix.ServerName, file string, size int64, sum []byte) (f *os.File, err error) {
	if len(file) < 2 {
		return nil, fmt.Errorf("%w: it has no name", errDamaged)
	}
	path := st.path(tenant, file)
	if f, err = os.Open(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: %w", errDamaged, err)
		}
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // it was only read
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() != size {
		return nil, fmt.Errorf("%w: %s has %d bytes, not %d", errDamaged, path, info.Size(), size)
	}
	if st.trusts(path) {
		return f, nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, stoppable{ctx, f}); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if !bytes.Equal(h.Sum(nil), sum) {
		return nil, fmt.Errorf("%w: %s has another hash", errDamaged, path)
	}
	st.trust(path)
	_, err = f.Seek(0, io.SeekStart)
	return f, err
}

func (st *store) trusts(path string) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	at, ok := st.trusted[path]
	age := st.now().Sub(at)
	return ok && age >= 0 && age < trustFor
}

func (st *store) trust(path string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for old := range st.trusted {
		if len(st.trusted) < maxTrusted {
			break
		}
		delete(st.trusted, old)
	}
	st.trusted[path] = st.now()
}

// remove removes a file. One that is gone already is no error.
func (st *store) remove(tenant matrix.ServerName, file string) error {
	if len(file) < 2 || strings.ContainsAny(file, `/\`) {
		return nil
	}
	path := st.path(tenant, file)
	st.mu.Lock()
	delete(st.trusted, path)
	st.mu.Unlock()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// stoppable is a reader that ends with its context.
type stoppable struct {
	ctx context.Context
	r   io.Reader
}

func (s stoppable) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.r.Read(p)
}
