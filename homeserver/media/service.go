package media

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

// Policy is what this package asks of the policy engine. It is declared here so that tests can answer in its place.
type Policy interface {
	// Decide answers one question.
	Decide(ctx context.Context, in *policy.Input) policy.Decision
	// Consider is Decide for looking ahead: nothing is recorded.
	Consider(ctx context.Context, in *policy.Input) policy.Decision
	// Fresh says whether nothing changed since the decision.
	Fresh(d policy.Decision) bool
}

// Parties tells who a user is to policy. It is declared here because accounts stand beside this package.
type Parties interface {
	// Party returns the facts about one user of any server.
	Party(ctx context.Context, user matrix.UserID) (*policy.Party, error)
}

// Deps is what a Service needs.
type Deps struct {
	DB      *storage.DB
	Policy  Policy
	Parties Parties
	// Tenants are the server names that are hosted here.
	Tenants []matrix.ServerName
	// Path is the folder for content; it is made when it is missing.
	Path string
	// MaxUpload is the largest upload in bytes, and the largest file that is fetched from another server.
	MaxUpload int64
	// Fetch downloads media of other servers; nil: none is to be had. MaxRemote is how many bytes of it are kept; 0 means 2 GiB.
	Fetch     Fetch
	MaxRemote int64
	Log       *logrus.Entry
	Now       func() time.Time
	// Registerer takes the metrics; nil keeps them to ourselves.
	Registerer prometheus.Registerer
}

// Service keeps media. Its methods may be called from any goroutine.
type Service struct {
	Deps
	log     *logrus.Entry
	store   *store
	waiters waiters
	flights singleflight.Group // of thumbnails
	fetches stream.Flight[*storage.Media]
	memory  *semaphore.Weighted // MiB that decoding may take
	metrics *metrics
	far     *far
	recheck chan struct{}
	stop    chan struct{}
	stopped sync.Once
}

// New returns a Service that is ready to use.
func New(d Deps) (*Service, error) {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Log == nil {
		d.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	if d.MaxRemote == 0 {
		d.MaxRemote = 2 << 30
	}
	st, err := newStore(d.Path, d.Now)
	if err != nil {
		return nil, fmt.Errorf("media folder: %w", err)
	}
	for _, t := range d.Tenants {
		st.hosted[t] = true
	}
	return &Service{Deps: d, log: d.Log.WithField("pkg", "media"), store: st, waiters: waiters{m: map[string]*waiter{}},
		memory: semaphore.NewWeighted(memoryBudget), metrics: newMetrics(d.Registerer), far: newFar(d.Now), recheck: make(chan struct{}, 1), stop: make(chan struct{})}, nil
}

// Stop ends the requests that wait for an upload.
func (s *Service) Stop() { s.stopped.Do(func() { close(s.stop) }) }

// MaxBytes is the largest upload in bytes, for those who want to know before they try.
func (s *Service) MaxBytes() int64 { return s.MaxUpload }

// Caller is the session that a request came with.
type Caller struct {
	UserID matrix.UserID
	Tenant matrix.ServerName
	// Server is another server that asks the tenant; empty for a user.
	Server matrix.ServerName
	// Subject is the user with the device and network of the request.
	Subject *policy.Party
	Request *policy.Request
}

// mediaIDRE is what the specification lets a media ID be.
//
// spec: client-server-api#content-repo-security-considerations
var mediaIDRE = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)

// newID makes a name of 160 random bits, in letters that no file system confuses.
func newID() string {
	var b [20]byte
	_, _ = rand.Read(b[:]) // never fails
	return strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}

func uri(tenant matrix.ServerName, id string) string { return "mxc://" + string(tenant) + "/" + id }

func (s *Service) hosted(name matrix.ServerName) bool { return s.store.hosted[name] }

// notFound is the one answer to media that is absent, refused, remote or misnamed.
const noMedia = "There is no such media, or it is not for you."

func notFound() error { return matrix.NotFound("%s", noMedia) }

func tooLarge(limit int64) error {
	return matrix.Errorf(http.StatusRequestEntityTooLarge, matrix.CodeTooLarge, "An upload may have at most %d bytes.", limit)
}

// diskError names the errors of a full disk; anything else stays as it is.
func diskError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return matrix.Errorf(http.StatusInsufficientStorage, matrix.CodeUnknown, "The server has no room for this upload at the moment.")
	}
	return err
}

// waiters wake the requests that wait for an upload of this process.
type waiters struct {
	mu sync.Mutex
	m  map[string]*waiter // guarded by mu
}

type waiter struct {
	done chan struct{}
	n    int
}

// join returns a channel that is closed when the upload is there, and what to call when nobody looks at it any more.
func (w *waiters) join(key string) (<-chan struct{}, func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.m[key]
	if e == nil {
		e = &waiter{done: make(chan struct{})}
		w.m[key] = e
	}
	e.n++
	return e.done, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if e.n--; e.n == 0 && w.m[key] == e {
			delete(w.m, key)
		}
	}
}

func (w *waiters) wake(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e := w.m[key]; e != nil {
		close(e.done)
		delete(w.m, key)
	}
}
