package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"hansa/storage/storagetest"
)

// built is the binary that all tests of this package share.
type built struct {
	once   sync.Once
	dir    string
	binary string
	err    error
}

var theBuild built

func TestMain(m *testing.M) {
	if os.Getenv("CHAOS_DISK_FAILS") != "" {
		if err := child(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if theBuild.dir != "" {
		_ = os.RemoveAll(theBuild.dir) // a temporary folder
	}
	os.Exit(code)
}

func program(t *testing.T) string {
	t.Helper()
	theBuild.once.Do(func() {
		if theBuild.binary = os.Getenv("HANSA_CHAOS_BINARY"); theBuild.binary != "" {
			return
		}
		if theBuild.dir, theBuild.err = os.MkdirTemp("", "hansa-chaos-"); theBuild.err == nil {
			theBuild.binary, theBuild.err = Build(context.Background(), theBuild.dir)
		}
	})
	if theBuild.err != nil {
		t.Fatal(theBuild.err)
	}
	return theBuild.binary
}

// newServer prepares a server on a new database, which is killed when the test ends.
func newServer(t *testing.T, database string) *Server {
	t.Helper()
	dir := t.TempDir()
	url := ""
	switch database {
	case "sqlite":
	case "postgres":
		url = storagetest.URL(t, database)
	default:
		url = database
	}
	s, err := NewServer(program(t), dir, url)
	if err != nil {
		t.Fatal(err)
	}
	attend(t, s, "the server")
	return s
}

// attend kills a server when the test ends, fails the test where the server has ended by itself before, and shows what it has written where the
// test fails.
func attend(t *testing.T, s *Server, what string) {
	t.Helper()
	t.Cleanup(func() {
		s.Kill()
		for _, fall := range s.Fallen() {
			t.Error(what + ": " + fall)
		}
		if !t.Failed() {
			return
		}
		kept, err := s.KeepLog(t.Name())
		t.Logf("the log of %s at %s is kept in %s (%v); its end:\n%s", what, s.URL, kept, err, s.LogTail())
	})
}

// number reads a setting of the run.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q is not a number", name, text)
	}
	return n
}

// seed is HANSA_CHAOS_SEED, or a new one.
func seed(t *testing.T) uint64 {
	t.Helper()
	n := number(t, "HANSA_CHAOS_SEED", rand.Uint64()>>40)
	t.Logf("seed %d; HANSA_CHAOS_SEED=%d does the same again", n, n)
	return n
}

// bar is a time that must be kept: as it is when the server is put to the test by itself (make chaos), and ten times that where
// other tests share the machine, so that only what does not come at all is told from what comes late.
func bar(d time.Duration) time.Duration {
	if os.Getenv("HANSA_CHAOS_KILLS") != "" {
		return d
	}
	return 10 * d
}

// weather runs a storm and fails the test on what was found. The limit is twice as long where other tests share the machine.
func weather(t *testing.T, p Plan, s *Server, limit time.Duration) *Report {
	t.Helper()
	if os.Getenv("HANSA_CHAOS_KILLS") == "" {
		limit *= 2
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	r, err := NewStorm(p, s).Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(r)
	for _, what := range r.Bad() {
		t.Error(what)
	}
	return r
}

// Kills at random moments and while chosen requests are under way lose nothing that was acknowledged and double nothing that was repeated.
// There are no failpoints in the product: the moments inside of requests (D441) are met by timing, from the moment at which a request
// of a kind is written.
func TestD441_D442_KillUnderLoad(t *testing.T) {
	t.Parallel()
	for _, database := range storagetest.Databases() {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			kills := int(number(t, "HANSA_CHAOS_KILLS", 8))
			r := weather(t, Plan{Seed: seed(t), Strikes: kills}, newServer(t, database), 3*time.Minute+time.Duration(kills)*5*time.Second)
			if median := r.Ready[len(r.Ready)/2]; median > bar(2*time.Second) {
				t.Errorf("the server is ready %v after a kill, want 2 s", median)
			}
		})
	}
}

// A room is there whole, with its alias and its invitations, or it is not there, whenever the server dies while it is made.
func TestD443_RoomsAreWholeOrAbsent(t *testing.T) {
	t.Parallel()
	for _, database := range storagetest.Databases() {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			kills := int(number(t, "HANSA_CHAOS_KILLS", 12)) / 2
			r := weather(t, Plan{Seed: seed(t), Strikes: kills, People: 4, Rooms: 1, Kinds: []string{"room"}, Aims: []string{"create"}, Pause: 2 * time.Millisecond},
				newServer(t, database), 3*time.Minute+time.Duration(kills)*5*time.Second)
			if r.Acked["rooms"] == 0 {
				t.Error("no room was made")
			}
		})
	}
}
