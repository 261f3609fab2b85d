package policy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// write makes the files of a bundle in a new directory; names are paths, values contents.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		put(t, dir, name, text)
	}
	return dir
}

func put(t testing.TB, dir, name, text string) {
	t.Helper()
	p := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// recorder keeps records in memory, or fails.
type recorder struct {
	mu      sync.Mutex
	records []Record
	err     error
}

func (r *recorder) RecordDecisions(_ context.Context, records []Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	r.records = append(r.records, records...)
	return nil
}

func (r *recorder) last(t testing.TB) Record {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.records) == 0 {
		t.Fatal("nothing was recorded")
	}
	return r.records[len(r.records)-1]
}

// clock is a clock that stands still until it is moved.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

const (
	acme   = "acme.example"
	globex = "globex.example"
)

// acmeFiles is a small real policy: two pools in acme, a whitelist in globex.
func acmeFiles() map[string]string {
	return map[string]string{
		"acme.example/pools.yaml": "research: {groups: [rnd], contact: closed}\nsales: {groups: [sales], contact: {with: [marketing]}}\nmarketing: {groups: [marketing], contact: {with: [sales]}}\noffice: {groups: [office], contact: open}\n",
	}
}

type fixture struct {
	*Engine
	dir   string
	rec   *recorder
	clock *clock
}

// newEngine starts an engine with acme and globex and the given bundle files.
func newEngine(t testing.TB, files map[string]string, change ...func(*Options)) *fixture {
	t.Helper()
	f := &fixture{dir: write(t, files), rec: &recorder{}, clock: newClock()}
	opts := Options{Bundles: []string{f.dir}, Tenants: []string{acme, globex}, Recorder: f.rec, Now: f.clock.now, Deadline: time.Minute}
	for _, c := range change {
		c(&opts)
	}
	e, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	f.Engine = e
	return f
}

func (f *fixture) user(id string, groups ...string) *Party {
	return f.Resolve(Facts{UserID: id, Groups: groups})
}

// refused starts an engine that must not start, and returns what was wrong.
func refused(t testing.TB, files map[string]string) Problems {
	t.Helper()
	dir := write(t, files)
	_, err := New(Options{Bundles: []string{dir}, Tenants: []string{acme, globex}})
	var ps Problems
	if !errors.As(err, &ps) && err != nil {
		ps = asProblems(err)
	}
	if len(ps) == 0 {
		t.Fatalf("New accepted the set, want problems")
	}
	return ps
}

func wantProblem(t testing.TB, ps Problems, file string, line int, text string) {
	t.Helper()
	for _, p := range ps {
		if strings.HasSuffix(filepath.ToSlash(p.File), file) && (line == 0 || p.Line == line) && strings.Contains(p.Message, text) {
			return
		}
	}
	t.Errorf("problems %v, want one in %s line %d with %q", ps, file, line, text)
}

func agree(owner, partner string, change ...func(*Agreement)) Agreement {
	a := Agreement{ID: owner + ">" + partner, Owner: owner, Partner: partner, State: "active", Mutual: true,
		Scope: &Scope{Direction: "both", Pools: AllPools(), Features: AllFeatures()}}
	for _, c := range change {
		c(&a)
	}
	return a
}

func send(p *Party, audience *Audience) *Input {
	return &Input{Point: EventSend, Subject: p, Audience: audience,
		Room:  &Room{ID: "!r:acme.example", Version: "12", Tenant: p.Tenant, JoinRule: "invite", HistoryVisibility: "shared", Federate: true, Membership: "join", Servers: []string{p.Tenant}, Members: 2},
		Event: &Event{Type: "m.room.message", MsgType: "m.text", Size: 64}}
}

func invite(from, to *Party, audience *Audience) *Input {
	return &Input{Point: RoomInvite, Subject: from, Target: to, Audience: audience,
		Room: &Room{ID: "!r:acme.example", Version: "12", Tenant: from.Tenant, JoinRule: "invite", HistoryVisibility: "shared", Federate: true, Membership: "join", Servers: []string{from.Tenant}, Members: 1}}
}
