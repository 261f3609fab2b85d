package policy

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
)

// Options is what an Engine is made from.
type Options struct {
	// Bundles are directories, OPA bundles (.tar.gz) and single .rego files with rules and data, beside the library.
	Bundles []string
	// Tenants are the domains that this deployment hosts.
	Tenants []string
	// OpenPartners are domains that every tenant is open to without an agreement; `*` stands for all.
	OpenPartners []string
	// Agreements are the records of the database at the start; see SetAgreements.
	Agreements []Agreement
	// Recorder keeps decisions. Nil keeps none, for commands that only ask.
	Recorder Recorder
	// RecordIP says whether records hold the client's address.
	RecordIP bool
	// Log gets what happens to the set of rules.
	Log *logrus.Entry
	// Registerer gets the metrics; nil for none.
	Registerer prometheus.Registerer
	// Now is the clock; nil for the system's.
	Now func() time.Time
	// Deadline bounds one evaluation; 0 for 50 ms.
	Deadline time.Duration
	// Poll is how often directories are looked at besides being watched; 0 for 500 ms.
	Poll time.Duration
	// SkipTests leaves out the tests of bundles when a set is loaded, for commands that only ask.
	SkipTests bool
}

// Engine answers questions with the active set of rules and data.
type Engine struct {
	opts    Options
	codec   *codec
	yes     *verdict // what is always allowed
	points  map[Point]PointInfo
	metrics *metrics
	current atomic.Pointer[snapshot]
	frames  sync.Pool
	breaker breaker
	repeats repeats
	prefix  string
	counter atomic.Uint64
	changed changes

	mu         sync.Mutex // guards what follows, and is held while a set is loaded
	tenants    []string
	agreements []Agreement
	rules      *ruleset
	config     map[string]any
	files      []sourceFile
	revision   string
	owners     map[string]string
	tests      TestSummary
	since      time.Time
	failed     *Failure
	generation uint64
}

// snapshot is everything that one answer depends on. It is swapped as a whole.
type snapshot struct {
	generation uint64
	revision   string
	rules      *ruleset
	data       *dataset
	owners     map[string]string // digests of what each owner wrote
	memo       *memo
	contacts   *contacts
}

// New loads the bundles and returns an Engine that answers. A set that is not sound is an error of type Problems.
func New(opts Options) (*Engine, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = discardLog()
	}
	if opts.Deadline == 0 {
		opts.Deadline = 50 * time.Millisecond
	}
	if opts.Poll == 0 {
		opts.Poll = 500 * time.Millisecond
	}
	seed := make([]byte, 10)
	if _, err := rand.Read(seed); err != nil {
		return nil, fmt.Errorf("policy: random prefix for decision ids: %w", err)
	}
	e := &Engine{opts: opts, codec: newCodec(), yes: &verdict{allow: true}, points: map[Point]PointInfo{}, metrics: newMetrics(opts.Registerer),
		prefix: strings.ToLower(base32.StdEncoding.EncodeToString(seed)) + "-"}
	e.frames.New = func() any { return new(frame) }
	for _, p := range Points() {
		e.points[p.Point] = p
	}
	e.tenants, e.agreements = normalNames(opts.Tenants), slices.Clone(opts.Agreements)
	if err := e.Reload(context.Background()); err != nil {
		return nil, err
	}
	return e, nil
}

func normalNames(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = normal(n)
	}
	return out
}

// Reload reads the bundles again and makes them active if they are sound. If not, the active set stays, the error says
// what is wrong, and Status keeps it.
func (e *Engine) Reload(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	files, err := readBundles(e.opts.Bundles)
	if err == nil && e.rules != nil && digest(files) == digest(e.files) {
		e.clearFailure()
		return nil
	}
	if err == nil {
		err = e.load(ctx, files)
	}
	if err != nil {
		e.fail(asProblems(err))
		return err
	}
	e.clearFailure()
	return nil
}

// load compiles, checks and tests a set, and makes it active. The caller holds mu.
func (e *Engine) load(ctx context.Context, files []sourceFile) error {
	set, problems := e.build(ctx, files, !e.opts.SkipTests)
	for _, p := range problems {
		if p.Warning {
			e.opts.Log.WithField("err", p.Error()).Warn("policy: something in the bundles looks wrong")
		}
	}
	if errs := problems.errors(); len(errs) > 0 {
		return errs
	}
	old := *e.state()
	e.restore(set)
	if err := e.activate(ctx); err != nil {
		e.restore(old)
		return err
	}
	e.opts.Log.WithField("revision", e.revision).Info("policy: set of rules active")
	return nil
}

type loaded struct {
	rules    *ruleset
	config   map[string]any
	files    []sourceFile
	revision string
	owners   map[string]string
	tests    TestSummary
}

func (e *Engine) state() *loaded {
	return &loaded{e.rules, e.config, e.files, e.revision, e.owners, e.tests}
}

func (e *Engine) restore(l loaded) {
	e.rules, e.config, e.files, e.revision, e.owners, e.tests = l.rules, l.config, l.files, l.revision, l.owners, l.tests
}

// build makes a set from files without touching the active one.
func (e *Engine) build(ctx context.Context, files []sourceFile, test bool) (loaded, Problems) {
	library, err := librarySource()
	if err != nil {
		return loaded{}, asProblems(err)
	}
	library = slices.DeleteFunc(library, sourceFile.isTest)
	set := loaded{files: files, revision: digest(library, files)}
	modules, problems := parseModules(library, true)
	own, more := parseModules(files, false)
	problems = append(problems, more...)
	set.config, more = readData(files)
	problems = append(problems, more...)
	if len(problems) > 0 {
		return set, problems
	}
	set.owners = digestsByOwner(files, own)
	modules = append(modules, own...)
	if set.rules, problems = newRuleset(e.codec, modules); len(problems) > 0 {
		return set, problems
	}
	data, err := newDataset(ctx, set.config, e.tenants, e.agreements, e.opts.OpenPartners, e.opts.Now())
	if err != nil {
		return set, asProblems(err)
	}
	problems = e.lintData(ctx, set.rules, data)
	if test && len(problems.errors()) == 0 && slices.ContainsFunc(own, func(m moduleFile) bool { return m.source.isTest() }) {
		results, more := runTests(ctx, modules, data, e.tenants, false)
		problems = append(problems, more...)
		set.tests = summarize(results)
		problems = append(problems, testProblems(results)...)
	}
	return set, problems
}

// activate makes a snapshot of the loaded rules, the data, the tenants and the agreements. The caller holds mu.
func (e *Engine) activate(ctx context.Context) error {
	data, err := newDataset(ctx, e.config, e.tenants, e.agreements, e.opts.OpenPartners, e.opts.Now())
	if err != nil {
		return err
	}
	e.generation++
	s := &snapshot{generation: e.generation, revision: e.revision, rules: e.rules, data: data, owners: e.owners, memo: newMemo(),
		contacts: newContacts(e.rules.contact)}
	if old := e.current.Load(); old != nil {
		s.contacts.inherit(old.contacts, func(a, b string) bool { return s.sameContact(old, a, b) })
	}
	e.since = e.opts.Now()
	e.current.Store(s)
	e.breaker.reset()
	e.metrics.activated(e.since)
	e.changed.notify()
	return nil
}

// sameContact says whether contact between users of two domains is decided by the same rules and data as before.
func (s *snapshot) sameContact(old *snapshot, a, b string) bool {
	for _, owner := range []string{"", "operator", a, b} {
		if s.owners[owner] != old.owners[owner] || (s.data.tenants[owner] == nil) != (old.data.tenants[owner] == nil) {
			return false
		}
	}
	return reflect.DeepEqual(s.data.agreement(a, b), old.data.agreement(a, b)) && reflect.DeepEqual(s.data.agreement(b, a), old.data.agreement(b, a))
}

// SetAgreements replaces the agreement records of the database. They hold at once.
func (e *Engine) SetAgreements(ctx context.Context, agreements []Agreement) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	old := e.agreements
	e.agreements = slices.Clone(agreements)
	if err := e.activate(ctx); err != nil {
		e.agreements = old
		return err
	}
	return nil
}

// SetTenants replaces the list of hosted domains.
func (e *Engine) SetTenants(ctx context.Context, tenants []string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	old := e.tenants
	e.tenants = normalNames(tenants)
	if err := e.activate(ctx); err != nil {
		e.tenants = old
		return err
	}
	return nil
}

// snapshot returns the active set; when an agreement began or ceased to hold since it was made, a new one.
func (e *Engine) snapshot(now time.Time) *snapshot {
	s := e.current.Load()
	if s.data.next.IsZero() || now.Before(s.data.next) {
		return s
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if cur := e.current.Load(); cur != s {
		return cur
	}
	if err := e.activate(context.Background()); err != nil {
		e.opts.Log.WithField("err", err).Error("policy: data of agreements could not be renewed")
	}
	return e.current.Load()
}

// Revision is the id of the active rules and data.
func (e *Engine) Revision() string { return e.current.Load().revision }

// Generation counts every change of rules, data, tenants and agreements in this process.
func (e *Engine) Generation() uint64 { return e.snapshot(e.opts.Now()).generation }

// Fresh says whether nothing changed since the decision. Whoever commits what a decision allowed asks it in the commit,
// and decides again if not.
func (e *Engine) Fresh(d Decision) bool {
	return e.snapshot(e.opts.Now()).generation == d.Generation
}

// Changed returns a channel that is closed at the next change of rules, data, tenants or agreements.
func (e *Engine) Changed() <-chan struct{} { return e.changed.wait() }

// Reads says whether the active rules of a point read a member of the input, such as `event.content`: a caller may leave
// out what costs something to gather and nobody reads.
func (e *Engine) Reads(p Point, path ...string) bool {
	rs := e.current.Load().rules
	for _, l := range rs.layersOf(p) {
		if l.reads.readsPrefix(path...) {
			return true
		}
	}
	return false
}

func (rs *ruleset) layersOf(p Point) []*layer {
	var out []*layer
	for _, m := range []map[Point]*layer{rs.library, rs.operator} {
		if l := m[p]; l != nil {
			out = append(out, l)
		}
	}
	for _, m := range rs.tenants {
		if l := m[p]; l != nil {
			out = append(out, l)
		}
	}
	for _, pools := range rs.pools {
		for _, m := range pools {
			if l := m[p]; l != nil {
				out = append(out, l)
			}
		}
	}
	return out
}

func (e *Engine) newID() string {
	return e.prefix + strconv.FormatUint(e.counter.Add(1), 36)
}

// lintData asks the library whether the data of the tenants has the shape it expects.
func (e *Engine) lintData(ctx context.Context, rs *ruleset, d *dataset) Problems {
	if rs.lint == nil {
		return nil
	}
	names := make([]*ast.Term, len(e.tenants))
	for i, t := range e.tenants {
		names[i] = ast.StringTerm(t)
	}
	txn, err := d.all.NewTransaction(ctx)
	if err != nil {
		return asProblems(err)
	}
	ev := &evaluator{compiler: rs.compiler, store: d.all, txn: txn, now: e.opts.Now(), limit: 10 * time.Second,
		input: ast.ObjectTerm(ast.Item(ast.StringTerm("tenants"), ast.ArrayTerm(names...)))}
	found, err := ev.lint(ctx, rs.lint)
	if err != nil {
		return asProblems(err)
	}
	return found
}

// changes lets many wait for the next change.
type changes struct {
	mu sync.Mutex
	ch chan struct{} // guarded by mu
}

func (c *changes) wait() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ch == nil {
		c.ch = make(chan struct{})
	}
	return c.ch
}

func (c *changes) notify() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ch != nil {
		close(c.ch)
		c.ch = nil
	}
}

// Failure is the last attempt to load a set that was not sound.
type Failure struct {
	// At is when it was tried.
	At time.Time `json:"at"`
	// Problems is what was wrong.
	Problems Problems `json:"problems"`
}

// fail reports a set that was not made active. The caller holds mu.
func (e *Engine) fail(problems Problems) {
	e.failed = &Failure{At: e.opts.Now(), Problems: problems}
	e.metrics.reloaded(false)
	for _, p := range problems.errors() {
		e.opts.Log.WithFields(logrus.Fields{"file": p.File, "line": p.Line, "err": p.Message}).Error("policy: new set of rules refused, the active one stays")
	}
}

func (e *Engine) clearFailure() {
	e.failed = nil
	e.metrics.reloaded(true)
}
