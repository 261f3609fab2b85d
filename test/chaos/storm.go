package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// Plan says what a Storm does.
type Plan struct {
	// Seed decides what people do and when the server is struck.
	Seed uint64
	// Strikes is how many times the server is struck.
	Strikes int
	// People and Rooms are how many there are; 0 means 8 and 4.
	People, Rooms int
	// Pause is the longest rest between two acts of a lane; 0 means 12 ms.
	Pause time.Duration
	// Kinds are the lanes that run; none means all.
	Kinds []string
	// Aims are the kinds of requests that kills are aimed at; none means all that the lanes make.
	Aims []string
	// Nodes are further nodes of the server, which run already; requests go to all of them by turns. Front, when set, is the URL that
	// requests go to instead.
	Nodes []*Server
	Front string
	// Strike takes something away and gives it back, instead of killing the process. The load goes on meanwhile, and may be told 5xx.
	Strike func(ctx context.Context, rng *rand.Rand) error
}

// Storm is one run: people who act, a server that is struck, and what was acknowledged.
type Storm struct {
	Plan
	Server *Server
	Client *Client

	rng    *rand.Rand // of the strikes
	people []*Person
	rooms  []string // everybody is in these
	doors  []string // people come and go here
	first  []string // of each of the people: a sync token from before the storm
	ledger ledger
	stop   chan struct{} // closed when lanes shall make no new act
	kills  int
	ready  []time.Duration

	mu      sync.Mutex
	open    chan struct{} // closed while the server is there; guarded by mu, like all below
	aim     string
	aimed   chan struct{} // closed after so many requests of the kind aim
	after   int
	trouble []string
	count   map[string]int // requests by kind
	// failures are the first of those that failed.
	failures []string
	failed   int // requests without an answer, or answered 5xx, but for those that are undecided
	// undecided requests were refused because policy had no time.
	undecided int
}

// NewStorm prepares a storm over a server that does not run yet.
func NewStorm(p Plan, s *Server) *Storm {
	if p.People == 0 {
		p.People = 8
	}
	if p.Rooms == 0 {
		p.Rooms = 4
	}
	if p.Pause == 0 {
		p.Pause = 12 * time.Millisecond
	}
	if len(p.Kinds) == 0 {
		p.Kinds = []string{"send", "device", "key", "data", "room", "member", "media", "account"}
	}
	if len(p.Aims) == 0 {
		for _, k := range p.Kinds {
			p.Aims = append(p.Aims, aims(k)...)
		}
	}
	open := make(chan struct{})
	close(open)
	client := NewClient(s.URL)
	for _, n := range p.Nodes {
		client.More = append(client.More, n.URL)
	}
	if p.Front != "" {
		client = NewClient(p.Front)
	}
	return &Storm{Plan: p, Server: s, Client: client, rng: rand.New(rand.NewPCG(p.Seed, 0)), stop: make(chan struct{}), open: open,
		count: map[string]int{}}
}

// aims are the requests that a lane makes.
func aims(kind string) []string {
	switch kind {
	case "send":
		return []string{"send", "redact", "state", "receipt"}
	case "key":
		return []string{"upload", "claim"}
	case "room":
		return []string{"create", "create"}
	case "account":
		return []string{"login", "register"}
	}
	return []string{kind}
}

// Run starts the server, lets the storm pass, and returns what was found. The server still runs then.
func (s *Storm) Run(ctx context.Context) (*Report, error) {
	took, err := s.Server.Start(ctx)
	if err != nil {
		return nil, err
	}
	s.ready = append(s.ready, took)
	if err := s.setUp(ctx); err != nil {
		return nil, fmt.Errorf("prepare the storm: %w", err)
	}
	lctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var acting, syncing sync.WaitGroup
	quiet := make(chan struct{}) // closed when all acts are done
	for i := range s.people {
		syncing.Go(func() { s.listen(lctx, i, quiet) })
	}
	for _, run := range s.lanes() {
		acting.Go(func() { run(lctx) })
	}
	err = s.strikes(ctx)
	close(s.stop)
	if err != nil {
		cancel()
	}
	acting.Wait()
	r := &Report{Seed: s.Seed, Strikes: s.kills, Acked: map[string]int{}}
	if err == nil {
		err = s.checkNames(ctx, r) // which makes events
	}
	close(quiet)
	syncing.Wait()
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("the storm took too long: %w", err)
	}
	return r, s.check(ctx, r)
}

// setUp makes the people and the rooms.
func (s *Storm) setUp(ctx context.Context) error {
	for i := range s.People {
		p, err := s.Client.Register(ctx, fmt.Sprint("p", i))
		if err != nil {
			return err
		}
		s.people = append(s.people, p)
	}
	for i := range s.Rooms + 2 {
		var got struct {
			RoomID string `json:"room_id"`
		}
		body := map[string]any{"preset": "public_chat", "name": fmt.Sprint("room ", i), "power_level_content_override": map[string]any{"state_default": 0}}
		if err := s.Client.Must(ctx, s.people[0], "POST", v3+"/createRoom", body, &got); err != nil {
			return err
		}
		if i >= s.Rooms {
			s.doors = append(s.doors, got.RoomID)
			continue
		}
		s.rooms = append(s.rooms, got.RoomID)
		for _, p := range s.people[1:] {
			if err := s.Client.Must(ctx, p, "POST", v3+"/join/"+esc(got.RoomID), map[string]any{}, nil); err != nil {
				return err
			}
		}
	}
	s.first = make([]string, len(s.people))
	for i, p := range s.people {
		var got struct {
			Next string `json:"next_batch"`
		}
		if err := s.Client.Must(ctx, p, "GET", v3+"/sync?timeout=0", nil, &got); err != nil {
			return err
		}
		s.first[i] = got.Next
	}
	s.ledger.open(len(s.people))
	return nil
}

// strikes strikes the server as often as planned.
func (s *Storm) strikes(ctx context.Context) error {
	for s.kills < s.Strikes {
		if err := s.moment(ctx); err != nil {
			return err
		}
		if s.Strike != nil {
			if err := s.Strike(ctx, s.rng); err != nil {
				return err
			}
			s.kills++
			continue
		}
		if err := s.kill(ctx); err != nil {
			return err
		}
	}
	return s.rest(ctx, 200*time.Millisecond) // the last start gets some load, too
}

// moment waits until the server shall be struck: at any moment, or while a request of a certain kind is under way.
func (s *Storm) moment(ctx context.Context) error {
	kind := ""
	if s.rng.IntN(3) == 0 {
		kind = s.Aims[s.rng.IntN(len(s.Aims))]
	}
	requests, delay := 40+s.rng.IntN(35*len(s.Kinds)), time.Duration(s.rng.Int64N(int64(8*time.Millisecond)))
	if err := s.next(ctx, "", requests); err != nil {
		return err
	}
	if kind != "" {
		if err := s.next(ctx, kind, 1); err != nil {
			return err
		}
	}
	return s.rest(ctx, delay)
}

// next waits until so many requests of a kind (empty: of any) were made from now on, at most two seconds.
func (s *Storm) next(ctx context.Context, kind string, n int) error {
	s.mu.Lock()
	aimed := make(chan struct{})
	s.aim, s.aimed, s.after = kind, aimed, n
	s.mu.Unlock()
	select {
	case <-aimed:
	case <-time.After(2 * time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

func (s *Storm) rest(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// kill kills the server and starts it again; one time in six it is killed once more while it starts.
func (s *Storm) kill(ctx context.Context) error {
	s.mu.Lock()
	s.open = make(chan struct{})
	s.mu.Unlock()
	s.Server.Kill()
	s.kills++
	for s.kills < s.Strikes && s.rng.IntN(6) == 0 {
		if err := s.Server.Launch(); err != nil {
			return err
		}
		if err := s.rest(ctx, time.Duration(s.rng.Int64N(int64(250*time.Millisecond)))); err != nil {
			return err
		}
		s.Server.Kill()
		s.kills++
	}
	took, err := s.Server.Start(ctx)
	if err != nil {
		return fmt.Errorf("after kill %d: %w", s.kills, err)
	}
	s.mu.Lock()
	s.ready = append(s.ready, took)
	close(s.open)
	s.mu.Unlock()
	return nil
}

// note tells that a request is about to be made.
func (s *Storm) note(kind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count[kind]++
	if s.aimed == nil || s.aim != "" && s.aim != kind {
		return
	}
	if s.after--; s.after == 0 {
		close(s.aimed)
		s.aimed = nil
	}
}

// complain remembers something that must not be.
func (s *Storm) complain(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trouble = append(s.trouble, fmt.Sprintf(format, args...))
}

// once makes a request. An error means that nobody knows whether it had its effect; the server is there again then.
func (s *Storm) once(ctx context.Context, kind string, p *Person, method, path string, body any) (Answer, error) {
	s.note(kind)
	a, err := s.Client.Do(ctx, method, path, p.Token, body)
	switch {
	case err != nil:
	case undecided(a):
		s.mu.Lock()
		s.undecided++
		s.mu.Unlock()
	case a.Status < 500 && a.Status != 429:
		return a, nil
	case s.Strike == nil:
		s.complain("%s %s: %v while nothing was wrong", method, path, a)
	}
	late := err == nil && undecided(a)
	err = errors.Join(err, fmt.Errorf("answer %d", a.Status))
	s.mu.Lock()
	if !late {
		if s.failed++; len(s.failures) < 10 {
			s.failures = append(s.failures, fmt.Sprintf("%s %s: %v %v", method, path, a, err))
		}
	}
	open := s.open
	s.mu.Unlock()
	select {
	case <-open:
	case <-ctx.Done():
		return a, ctx.Err()
	}
	return a, errors.Join(err, s.rest(ctx, 10*time.Millisecond))
}

// undecided tells whether a request was refused because the rules had too little of a busy processor in the time that they have. Nothing was
// done then, by design.
func undecided(a Answer) bool {
	return bytes.Contains(a.Raw, []byte(`"policy_error"`)) || bytes.Contains(a.Raw, []byte("The policy cannot decide at present"))
}

// settle makes a request again and again until it has an answer. tries is how many it took.
func (s *Storm) settle(ctx context.Context, kind string, p *Person, method, path string, body any) (a Answer, tries int, err error) {
	for tries = 1; ; tries++ {
		a, err = s.once(ctx, kind, p, method, path, body)
		if err == nil || ctx.Err() != nil {
			return a, tries, err
		}
	}
}

// Report is what a storm found.
type Report struct {
	Seed    uint64
	Strikes int
	// Requests were made, Failed of them had no answer or 5xx, but for those that are Undecided.
	Requests, Failed int
	// Failures are the first of those.
	Failures []string
	// Undecided were refused because policy had no time to decide.
	Undecided int
	// Acked counts what was acknowledged, by kind.
	Acked map[string]int
	// Lost, Doubled and Disordered name what is not there, there twice, or in another order; Wrong is everything else.
	Lost, Doubled, Disordered, Wrong []string
	// Ready is how long each start took, in ascending order.
	Ready []time.Duration
}

// Bad is everything that must be empty.
func (r *Report) Bad() []string {
	var out []string
	for name, list := range map[string][]string{"lost": r.Lost, "doubled": r.Doubled, "disordered": r.Disordered, "wrong": r.Wrong} {
		for i, what := range list {
			if i == 20 {
				out = append(out, fmt.Sprintf("%s: and %d more", name, len(list)-i))
				break
			}
			out = append(out, name+": "+what)
		}
	}
	slices.Sort(out)
	return out
}

// String is the report in a few lines.
func (r *Report) String() string {
	var acked []string
	for kind, n := range r.Acked {
		acked = append(acked, fmt.Sprint(kind, " ", n))
	}
	slices.Sort(acked)
	return fmt.Sprintf("seed %d: %d strikes, %d requests, %d of them without an answer, %d not decided; acknowledged: %s; lost %d, doubled %d, out of order %d, wrong %d; "+
		"ready again after %v (median), %v (longest)", r.Seed, r.Strikes, r.Requests, r.Failed, r.Undecided, strings.Join(acked, ", "), len(r.Lost), len(r.Doubled),
		len(r.Disordered), len(r.Wrong), r.Ready[len(r.Ready)/2].Round(time.Millisecond), r.Ready[len(r.Ready)-1].Round(time.Millisecond))
}
