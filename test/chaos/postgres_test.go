package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hansa/storage/storagetest"
)

// cluster is a PostgreSQL of this test's own, which may crash.
type cluster struct{ dir, url string }

func setup(verb, dir string) (string, error) {
	c := exec.Command(filepath.Join("..", "setup", "postgres.sh"), verb, "--dir", dir)
	var said strings.Builder
	c.Stderr = &said
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", c, err, said.String())
	}
	return strings.TrimSpace(string(out)), nil
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	top, err := os.MkdirTemp("", "hansa-chaos-postgres-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(top, 0o711); err != nil { // the database may run as another user
		t.Fatal(err)
	}
	c := &cluster{dir: filepath.Join(top, "pg")}
	t.Cleanup(func() {
		if _, err := setup("stop", c.dir); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(top) // a temporary folder
	})
	if c.url, err = setup("start", c.dir); err != nil {
		t.Fatal(err)
	}
	return c
}

// A PostgreSQL that crashes and comes back costs a delay and 5xx, and loses nothing: neither what was acknowledged nor the server, which takes
// writes again within three seconds.
func TestD453_PostgresRestarts(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	var slow time.Duration
	s := newServer(t, c.url)
	crashes := int(number(t, "HANSA_CHAOS_KILLS", 16)) / 4
	weather(t, Plan{Seed: seed(t), Strikes: crashes, Strike: func(ctx context.Context, _ *rand.Rand) error {
		if _, err := setup("crash", c.dir); err != nil {
			return err
		}
		began := time.Now()
		if err := s.AwaitReady(ctx); err != nil {
			return err
		}
		slow = max(slow, time.Since(began))
		return nil
	}}, s, 3*time.Minute+time.Duration(crashes)*15*time.Second)
	t.Logf("ready %v after the database was back, at the latest", slow.Round(time.Millisecond))
	if slow > bar(3*time.Second) {
		t.Errorf("the server is ready %v after the database is, want 3 s", slow)
	}
}

// A connection that is cut around a COMMIT leaves nobody knowing what became of it. The transaction ID of the repeated request says.
func TestD454_AmbiguousCommit(t *testing.T) {
	t.Parallel()
	p, url, err := NewProxy(storagetest.URL(t, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	s := newServer(t, url)
	cuts := int(number(t, "HANSA_CHAOS_KILLS", 20))
	r := weather(t, Plan{Seed: seed(t), Strikes: cuts, Strike: func(ctx context.Context, rng *rand.Rand) error {
		select {
		case <-p.CutNext([]Cut{BeforeCommit, AfterCommit, AfterCommit}[rng.IntN(3)]):
		case <-ctx.Done():
			return ctx.Err()
		}
		if rng.IntN(5) == 0 {
			p.CutAll()
		}
		return nil
	}}, s, 3*time.Minute+time.Duration(cuts)*5*time.Second)
	s.Stop()
	if n := p.Broken(); n < r.Strikes {
		t.Errorf("%d connections were cut in %d strikes", n, r.Strikes)
	}
	if r.Failed == 0 {
		t.Error("no request felt anything of it: the proxy cuts nothing")
	}
}
