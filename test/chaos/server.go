package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"hansa/config"
)

// Tenant is the domain of all people of this package.
const Tenant = "chaos.example"

// Build compiles the server into a folder and returns the path of the binary.
func Build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "hansa")
	c := exec.CommandContext(ctx, "go", "build", "-o", binary, "hansa/cmd/hansa")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", c, err, out)
	}
	return binary, nil
}

// Server is the binary with its folder and its process. One goroutine starts and kills it.
type Server struct {
	Binary   string
	Dir      string
	Database string
	URL      string // of the client listener, the same over restarts
	Admin    string // URL of the admin listener
	// Wrap, when set, is a shell line that runs before the server in a mount namespace of its own; it ends by running "$@".
	Wrap string
	// Env are further variables of the environment.
	Env []string

	cmd  *exec.Cmd
	done chan error
	log  *os.File
	// fallen says of each time that the process ended, and nobody had ended it, with what.
	fallen []string
	seen   bool // that the process has ended: see Ended
}

// NewServer writes the configuration of a server with open registration and no rate limits.
func NewServer(binary, dir, database string) (*Server, error) {
	client, err := freePort()
	if err != nil {
		return nil, err
	}
	admin, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &Server{Binary: binary, Dir: dir, Database: database, URL: "http://" + client, Admin: "http://" + admin}
	if s.Database == "" {
		s.Database = "sqlite:" + filepath.Join(dir, "data", "hansa.db")
	}
	return s, s.configure(dir)
}

// Process makes a server of a configuration, with listeners for clients and administrators at addresses of its own. The configuration and the log are
// in dir.
func Process(binary, dir string, cfg config.Config) (*Server, error) {
	client, err := freePort()
	if err != nil {
		return nil, err
	}
	admin, err := freePort()
	if err != nil {
		return nil, err
	}
	cfg.Listen.Client, cfg.Listen.Admin = client, admin
	text, err := cfg.YAML()
	if err != nil {
		return nil, err
	}
	s := &Server{Binary: binary, Dir: dir, Database: cfg.Database, URL: "http://" + client, Admin: "http://" + admin}
	return s, os.WriteFile(filepath.Join(dir, "hansa.yaml"), text, 0o600)
}

// Sibling writes the configuration of another node of the same deployment, with a folder of its own for what nodes do not share.
func (s *Server) Sibling(dir string) (*Server, error) {
	n, err := NewServer(s.Binary, dir, s.Database)
	if err != nil {
		return nil, err
	}
	n.Env = s.Env
	return n, n.configure(s.Dir)
}

// configure writes the configuration; keys, policy and media are in the folder shared.
func (s *Server) configure(shared string) error {
	client, admin := strings.TrimPrefix(s.URL, "http://"), strings.TrimPrefix(s.Admin, "http://")
	text := fmt.Sprintf(`data_dir: %[1]s/data
database: %[2]q
listen: {client: %[3]q, admin: %[4]q}
tenants: [{name: %[5]s, signing_key_file: %[6]s/keys/key, registration: open, public_url: http://%[3]s}]
policy: {bundles: [%[6]s/policy]}
media: {path: %[6]s/media}
limits: {enabled: false}
`, s.Dir, s.Database, client, admin, Tenant, shared)
	if err := os.MkdirAll(filepath.Join(shared, "policy"), 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.Dir, "hansa.yaml"), []byte(text), 0o600)
}

// freePort finds an address that nobody listens on, below the range that the kernel hands out to outgoing connections, so that it is
// still free when a killed server wants it again.
func freePort() (string, error) {
	for range 200 {
		address := fmt.Sprintf("127.0.0.1:%d", 12000+rand.IntN(8000))
		l, err := net.Listen("tcp", address)
		if err == nil {
			return address, l.Close()
		}
	}
	return "", errors.New("no free port between 12000 and 20000")
}

// Launch starts the process and does not wait for it.
func (s *Server) Launch() error {
	log, err := os.OpenFile(filepath.Join(s.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	args := []string{s.Binary, "serve", "-c", filepath.Join(s.Dir, "hansa.yaml"), "--log-level", "warn"}
	if s.Wrap != "" {
		args = append([]string{"sh", "-c", s.Wrap, "sh"}, args...)
	}
	c := exec.Command(args[0], args[1:]...)
	c.Env = append(cleanEnv(), s.Env...)
	c.Stdout, c.Stderr = log, log
	if s.Wrap != "" {
		c.SysProcAttr = namespace()
	}
	if err := c.Start(); err != nil {
		return errors.Join(err, log.Close())
	}
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	s.cmd, s.done, s.log, s.seen = c, done, log, false
	return nil
}

// namespace lets a process mount what others do not see. (A namespace that is unshared, not cloned, is made private by package syscall.)
func namespace() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		a.Cloneflags = syscall.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return a
}

// cleanEnv is the environment without variables that would configure the server.
func cleanEnv() []string {
	var out []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "HANSA_") {
			out = append(out, e)
		}
	}
	return out
}

// Start starts the process and waits until it is ready; it returns how long that took.
func (s *Server) Start(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	if err := s.Launch(); err != nil {
		return 0, err
	}
	err := s.AwaitReady(ctx)
	return time.Since(began), err
}

// AwaitReady waits until both listeners answer and the server says that it is ready.
func (s *Server) AwaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(4 * time.Millisecond)
	defer tick.Stop()
	h := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for _, url := range []string{s.Admin + "/readyz", s.URL + "/_matrix/client/versions"} {
		for !answers(ctx, h, url) {
			select {
			case err := <-s.done:
				s.done <- err
				return fmt.Errorf("the server ended: %w\n%s", err, s.LogTail())
			case <-ctx.Done():
				return fmt.Errorf("the server is not ready: %w\n%s", ctx.Err(), s.LogTail())
			case <-tick.C:
			}
		}
	}
	return nil
}

func answers(ctx context.Context, h *http.Client, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := h.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close() // only the status matters
	return resp.StatusCode == http.StatusOK
}

// Kill ends the process with SIGKILL and waits until it is gone.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

// Stop ends the process in peace.
func (s *Server) Stop() { s.end(syscall.SIGTERM) }

func (s *Server) end(sig syscall.Signal) {
	if s.cmd == nil {
		return
	}
	if ended, err := s.ended(0); ended && !s.seen {
		s.fallen = append(s.fallen, fmt.Sprintf("the process %d at %s has ended by itself: %v", s.Pid(), s.URL, err))
	}
	_ = s.cmd.Process.Signal(sig) // it may have ended by itself
	select {
	case <-s.done:
	case <-time.After(30 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
	_ = s.log.Close() // the process has written it
	s.cmd = nil
}

// Fallen says of each time that the process ended, and nobody had ended it or asked for it by Ended, with what.
func (s *Server) Fallen() []string { return s.fallen }

// Ended tells whether the process has ended by itself, and with what.
func (s *Server) Ended(within time.Duration) (bool, error) {
	ended, err := s.ended(within)
	s.seen = s.seen || ended
	return ended, err
}

func (s *Server) ended(within time.Duration) (bool, error) {
	var err error
	select {
	case err = <-s.done:
	default:
		select {
		case err = <-s.done:
		case <-time.After(within):
			return false, nil
		}
	}
	s.done <- err
	return true, err
}

// Pause keeps the process from doing anything until Continue.
func (s *Server) Pause() error { return s.cmd.Process.Signal(syscall.SIGSTOP) }

// Continue ends a Pause.
func (s *Server) Continue() error { return s.cmd.Process.Signal(syscall.SIGCONT) }

// Metric reads a metric of the process, summed over its labels.
func (s *Server) Metric(ctx context.Context, name string) (sum float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Admin+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer discard(resp.Body)
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var v float64
		if metric, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && (metric == name || strings.HasPrefix(metric, name+"{")) {
			if _, err := fmt.Sscan(value, &v); err == nil {
				sum += v
			}
		}
	}
	return sum, nil
}

// Pid is the number of the process.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// Memory is the resident memory of the process in bytes.
func (s *Server) Memory() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.Pid()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kb int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kb); err == nil {
			return kb << 10, nil
		}
	}
	return 0, errors.New("no VmRSS")
}

// Log is what the server has written.
func (s *Server) Log() string {
	text, _ := os.ReadFile(filepath.Join(s.Dir, "log")) // an empty one explains as little
	return string(text)
}

// traceMax is how much of a panic LogTail shows, tailMax how much of the end.
const traceMax, tailMax = 6000, 3000

// LogTail is the end of what the server has written, and before it the newest panic, if there was one: a process that was started again writes on
// behind it.
func (s *Server) LogTail() string {
	text := s.Log()
	tail := len(text) - min(len(text), tailMax)
	trace := -1
	for _, mark := range []string{"panic: ", "fatal error: ", "unexpected fault address", "WARNING: DATA RACE"} {
		if strings.HasPrefix(text, mark) {
			trace = max(trace, 0)
		}
		if at := strings.LastIndex(text, "\n"+mark); at >= 0 {
			trace = max(trace, at+1)
		}
	}
	switch {
	case trace < 0:
	case trace >= tail || trace+traceMax >= tail:
		tail = trace
	default:
		return strings.TrimSpace(text[trace:trace+traceMax]) + "\n...\n" + strings.TrimSpace(text[tail:])
	}
	return strings.TrimSpace(text[tail:])
}

// KeepLog copies what the server has written to a file that outlives the test, and returns its path.
func (s *Server) KeepLog(name string) (string, error) {
	f, err := os.CreateTemp("", "hansa-"+strings.Map(func(r rune) rune {
		if r == '/' || r == os.PathSeparator {
			return '-'
		}
		return r
	}, name)+"-*.log")
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(s.Log())
	return f.Name(), errors.Join(err, f.Close())
}

// discard reads a body to its end, so that the connection can be used again.
func discard(body io.ReadCloser) {
	_, _ = io.Copy(io.Discard, body) // nobody wants it
	_ = body.Close()
}
