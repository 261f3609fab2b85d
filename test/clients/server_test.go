package clients_test

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// server is a running hansa with two tenants, set up with the same commands that an operator would type.
type server struct {
	binary, dir, config string
	url                 string
	cmd                 *exec.Cmd
	done                chan error
	log                 string
}

// startServer makes a deployment with the tenants acme.localhost and globex.localhost, starts it and waits until it
// answers. An empty database means the embedded one.
func startServer(t *testing.T, binary, database string) *server {
	t.Helper()
	dir := t.TempDir()
	client, admin := freeAddress(t), freeAddress(t)
	srv := &server{
		binary: binary, dir: dir, config: filepath.Join(dir, "hansa.yaml"),
		url: "http://" + client, log: filepath.Join(dir, "server.log"),
	}
	args := []string{"init", "--dir", dir, "--tenant", acme, "--tenant", globex}
	if database != "" {
		args = append(args, "--database", database)
	}
	srv.command(t, "", args...)

	// What .well-known announces must be reachable from here.
	text, err := os.ReadFile(srv.config)
	if err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile(`(?m)public_url:.*$`).ReplaceAll(text, []byte("public_url: "+srv.url))
	if err := os.WriteFile(srv.config, text, 0o600); err != nil {
		t.Fatal(err)
	}

	srv.start(t, []string{"HANSA_LISTEN_CLIENT=" + client, "HANSA_LISTEN_ADMIN=" + admin},
		"serve", "-c", srv.config)
	srv.waitReady(t, "http://"+admin+"/readyz")

	// People of two tenants may only meet under an agreement that both made.
	srv.command(t, "", "partner", "propose", acme, globex, "-c", srv.config)
	srv.command(t, "", "partner", "approve", globex, acme, "-c", srv.config)
	return srv
}

// start runs a verb that serves, in the background; its output goes to the log.
func (s *server) start(t *testing.T, env []string, args ...string) {
	t.Helper()
	log, err := os.Create(s.log)
	if err != nil {
		t.Fatal(err)
	}
	s.done = make(chan error, 1)
	s.cmd = exec.Command(s.binary, args...)
	s.cmd.Dir = s.dir
	s.cmd.Env = append(os.Environ(), env...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s.done <- s.cmd.Wait()
		_ = log.Close() // nobody writes to it any more
	}()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill() // it has ended by now, unless the test failed
		if t.Failed() {
			t.Logf("end of the server's log:\n%s", tail(s.log, 60))
		}
	})
}

// waitReady waits until the server says that it is ready.
func (s *server) waitReady(t *testing.T, address string) {
	t.Helper()
	s.waitFor(t, address+" answers 200", func() bool {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		_ = resp.Body.Close() // only the status counts
		return resp.StatusCode == http.StatusOK
	})
}

// waitFor looks until something is so, for a minute at most, while the server runs.
func (s *server) waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	late := time.After(time.Minute)
	for !is() {
		select {
		case err := <-s.done:
			t.Fatalf("the server ended before %s: %v\n%s", what, err, tail(s.log, 60))
		case <-late:
			t.Fatalf("a minute has passed before %s\n%s", what, tail(s.log, 60))
		case <-tick.C:
		}
	}
}

// addUser makes an account with the password of these tests.
func (s *server) addUser(t *testing.T, id string) {
	t.Helper()
	s.command(t, password+"\n", "user", "add", id, "--password-stdin", "-c", s.config)
}

// command runs a verb of hansa to its end.
func (s *server) command(t *testing.T, input string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), s.binary, args...)
	cmd.Dir = s.dir
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("hansa %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// stop ends the server as an init system would and expects a clean end.
func (s *server) stop(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("stop the server: %v", err)
		return
	}
	select {
	case err := <-s.done:
		if err != nil {
			t.Errorf("the server did not end cleanly: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the server does not stop within 30 s of SIGTERM")
	}
}

// checkLog fails when the server logged an error or a panic while the clients used it.
func (s *server) checkLog(t *testing.T) {
	t.Helper()
	log, err := os.ReadFile(s.log)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range errorLines(log) {
		t.Errorf("the server logged: %s", line)
	}
}

// freeAddress finds a port of the loopback interface that nobody listens on now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // it never accepted anything
	return l.Addr().String()
}

// tail returns the last lines of a file.
func tail(path string, n int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
