package sim

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"hansa/matrix"
)

// TestConverges is the simulation.
func TestConverges(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // what is simulated is small
	f := newFleet(t)
	versions := matrix.RoomVersions()
	if v := os.Getenv("HANSA_SIM_VERSION"); v != "" {
		versions = strings.Split(v, ",")
	}
	var jobs []job
	seeds, from := number(t, "HANSA_SIM_SEEDS"), number(t, "HANSA_SIM_FROM")
	switch {
	case os.Getenv("HANSA_SIM_SEED") != "":
		for _, v := range versions {
			o := simulate(f, job{v, number(t, "HANSA_SIM_SEED")}, t.Log)
			o.report(t)
		}
		return
	case seeds == 0: // fifty in all, each version in its turn
		for i := range uint64(50) {
			jobs = append(jobs, job{versions[i%uint64(len(versions))], i})
		}
		jobs = append(jobs, once...)
	default:
		for i := range seeds {
			for _, v := range versions {
				jobs = append(jobs, job{v, from + i})
			}
		}
	}
	p := newProgress(len(jobs), seeds > 0)
	for o := range simulateAll(f, jobs) {
		p.add(o)
		o.report(t)
	}
	t.Logf("seeds that agreed, and what they did:\n%s", p.summary())
}

// once are seeds that did not agree before something was mended.
var once = []job{
	{"6", 856}, // one came back to a room by way of a server that was not in it any more, and never looked for what it had missed
}

// A seed says everything: the same one does the same again.
func TestReplays(t *testing.T) {
	f := newFleet(t)
	for _, v := range []string{"1", "6", "12"} {
		first, again := simulate(f, job{v, 3}, nil), simulate(f, job{v, 3}, nil)
		for i := range max(len(first.steps), len(again.steps)) {
			if i >= len(first.steps) || i >= len(again.steps) || first.steps[i] != again.steps[i] {
				t.Fatalf("version %s: step %d is\n%v\nand the second time\n%v", v, i, first.steps[i:min(i+3, len(first.steps))], again.steps[i:min(i+3, len(again.steps))])
			}
		}
	}
}

func number(t *testing.T, name string) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 64)
	must(t, err)
	return n
}

// job names a simulation.
type job struct {
	version string
	seed    uint64
}

// hides tells whether the room hides its past from newcomers, so that they get the events of that time redacted.
func (j job) hides() bool { return j.seed%2 == 1 }

func (j job) String() string { return fmt.Sprintf("version %s, seed %d", j.version, j.seed) }

// outcome is how a simulation went.
type outcome struct {
	job
	counts
	failures []string
	steps    []string
}

// report fails the test where the simulation failed, and says how to see it again.
func (o outcome) report(t *testing.T) {
	t.Helper()
	if len(o.failures) == 0 {
		return
	}
	t.Errorf("%s:\n%s\nits last steps:\n%s\nagain: HANSA_SIM_SEED=%d HANSA_SIM_VERSION=%s go test ./test/sim -run TestConverges -v", o.job,
		strings.Join(o.failures, "\n"), strings.Join(o.steps[max(0, len(o.steps)-30):], "\n"), o.seed, o.version)
}

// simulateAll runs simulations, as many at a time as there are processors. Outcomes come as they are ready.
func simulateAll(f *fleet, jobs []job) <-chan outcome {
	todo, done := make(chan job), make(chan outcome)
	go func() {
		defer close(todo)
		for _, j := range jobs {
			todo <- j
		}
	}()
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for j := range todo {
				done <- simulate(f, j, nil)
			}
		})
	}
	go func() {
		wg.Wait()
		close(done)
	}()
	return done
}

// simulate runs one simulation. tell, if it is not nil, hears what happens.
func simulate(f *fleet, j job, tell func(...any)) outcome {
	r := &recorder{}
	o := outcome{job: j}
	dir, err := os.MkdirTemp(fast(), "hansa-sim-")
	if err != nil {
		return outcome{job: j, failures: []string{err.Error()}}
	}
	defer func() { _ = os.RemoveAll(dir) }()
	done := make(chan struct{})
	go func() { // a goroutine of its own, that Fatal can end
		defer close(done)
		defer func() {
			if e := recover(); e != nil {
				r.Errorf("panic: %v\n%s", e, debug.Stack())
			}
		}()
		w := newWorld(r, f, dir, j, tell)
		defer func() { o.counts, o.steps = w.counts, w.steps }()
		defer w.close()
		w.create()
		for n := range 100 {
			w.step(n)
		}
		w.settle()
		w.compare()
	}()
	<-done
	o.failures = r.failures
	return o
}

// fast is a folder in memory where there is one: nothing here is about what survives a loss of power.
func fast() string {
	if i, err := os.Stat("/dev/shm"); err == nil && i.IsDir() {
		return "/dev/shm"
	}
	return ""
}

// reporter is what a simulation needs of a test.
type reporter interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
}

// recorder keeps what a simulation that runs beside others reports.
type recorder struct{ failures []string }

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatal(args ...any) {
	r.failures = append(r.failures, fmt.Sprint(args...))
	runtime.Goexit()
}

// counts say what simulations did, so that one can see whether they were worth it.
type counts struct {
	events, forks, soft, fetched, restarts, cuts, lost int
	// judged is how many verdicts on what was sent were held against the state of that moment.
	judged int
	// equal is how many pairs of servers had to have one view in the end, apart how many others there were, mute how many servers had
	// nobody in the room in the end who may speak, out how many had nobody in it.
	equal, apart, mute, out int
}

func (c *counts) add(o counts) {
	c.events += o.events
	c.forks += o.forks
	c.soft += o.soft
	c.fetched += o.fetched
	c.restarts += o.restarts
	c.cuts += o.cuts
	c.lost += o.lost
	c.judged += o.judged
	c.equal += o.equal
	c.apart += o.apart
	c.mute += o.mute
	c.out += o.out
}

// progress tells how far many simulations are.
type progress struct {
	total, done, failed int
	began, told         time.Time
	every               time.Duration
	terminal            bool
	good, bad           map[string]int
	counts              map[string]*counts
}

func newProgress(total int, loud bool) *progress {
	p := &progress{total: total, began: time.Now(), told: time.Now(), good: map[string]int{}, bad: map[string]int{}, counts: map[string]*counts{}}
	if !loud {
		return p
	}
	p.every = 30 * time.Second
	if i, err := os.Stdout.Stat(); err == nil && i.Mode()&os.ModeCharDevice != 0 {
		p.every, p.terminal = time.Second/2, true
	}
	return p
}

func (p *progress) add(o outcome) {
	p.done++
	if p.counts[o.version] == nil {
		p.counts[o.version] = &counts{}
	}
	p.counts[o.version].add(o.counts)
	if len(o.failures) > 0 {
		p.failed++
		p.bad[o.version]++
	} else {
		p.good[o.version]++
	}
	now := time.Now()
	if p.every == 0 || now.Sub(p.told) < p.every && p.done < p.total && len(o.failures) == 0 {
		return
	}
	p.told = now
	took := now.Sub(p.began)
	left := time.Duration(float64(took) / float64(p.done) * float64(p.total-p.done))
	begin, end := "", "\n"
	if p.terminal {
		begin, end = "\r\x1b[K", ""
		if p.done == p.total || len(o.failures) > 0 {
			end = "\n"
		}
	}
	fmt.Printf("%s%d of %d seeds, %d failed, %s gone, about %s left%s", begin, p.done, p.total, p.failed, took.Round(time.Second), left.Round(time.Second), end)
	if len(o.failures) > 0 {
		fmt.Printf("FAILED %s: HANSA_SIM_SEED=%d HANSA_SIM_VERSION=%s go test ./test/sim -run TestConverges -v\n", o.job, o.seed, o.version)
	}
}

func (p *progress) summary() string {
	versions := make([]string, 0, len(p.counts))
	for v := range p.counts {
		versions = append(versions, v)
	}
	slices.SortFunc(versions, func(a, b string) int { return len(a)*100 - len(b)*100 + strings.Compare(a, b) })
	var b strings.Builder
	for _, v := range versions {
		c := p.counts[v]
		fmt.Fprintf(&b, "version %2s: %d agreed, %d failed; %d events, %d forks, %d failed softly, %d verdicts, %d states fetched, %d transactions lost, %d partitions, %d restarts; "+
			"%d pairs of servers equal, %d apart; %d servers mute, %d out of the room\n",
			v, p.good[v], p.bad[v], c.events, c.forks, c.soft, c.judged, c.fetched, c.lost, c.cuts, c.restarts, c.equal, c.apart, c.mute, c.out)
	}
	return b.String()
}
