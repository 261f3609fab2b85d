package clients_test

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	acme   = "acme.localhost"
	globex = "globex.localhost"

	// scriptTime is how long one script may run; it takes about a tenth of that.
	scriptTime = 6 * time.Minute
	// password is what every account of these tests has.
	password = "correct horse battery staple"
)

// script is one scenario with a real client: a name, which is also part of its users' names, and the command.
type script struct {
	name    string
	command []string
}

// scripts lists the scenarios. Each gets two accounts of its own, one a tenant, so that they run side by side.
func scripts() []script {
	node := filepath.Join("node_modules", ".bin", "node")
	return []script{
		{"rooms", []string{node, "jssdk/rooms.mjs"}},
		{"encryption", []string{node, "jssdk/encryption.mjs"}},
		{"hydrogen", []string{node, "hydrogen/scenario.mjs"}},
		{"nio", []string{"/usr/bin/python3", "nio/chat.py"}},
	}
}

func TestClients(t *testing.T) {
	checkTools(t)
	binary := buildServer(t)
	databases := map[string]func(*testing.T) string{"sqlite": nil, "postgres": postgresDatabase}
	for _, name := range []string{"sqlite", "postgres"} {
		t.Run(name, func(t *testing.T) {
			var database string
			if make := databases[name]; make != nil {
				database = make(t)
			}
			if err := os.RemoveAll(filepath.Join("output", name)); err != nil { // what an earlier run left
				t.Fatal(err)
			}
			srv := startServer(t, binary, database)
			t.Run("scripts", func(t *testing.T) {
				for _, s := range scripts() {
					t.Run(s.name, func(t *testing.T) {
						t.Parallel()
						people := []string{"@alice-" + s.name + ":" + acme, "@bob-" + s.name + ":" + globex}
						for _, id := range people {
							srv.addUser(t, id)
						}
						runScript(t, s, filepath.Join("output", name), password, people, "HANSA_URL="+srv.url)
					})
				}
			})
			srv.stop(t)
			srv.checkLog(t)
		})
	}
}

// TestDemo starts what `hansa demo` makes of nothing and lets its people meet, or not.
func TestDemo(t *testing.T) {
	checkTools(t)
	binary := buildServer(t)
	dir, client := t.TempDir(), freeAddress(t)
	_, port, err := net.SplitHostPort(client)
	if err != nil {
		t.Fatal(err)
	}
	srv := &server{binary: binary, dir: dir, url: "http://" + client, log: filepath.Join(dir, "demo.log")}
	srv.start(t, nil, "demo", "--dir", filepath.Join(dir, "demo"), "--port", port)
	srv.waitFor(t, "the demo says how to stop it", func() bool {
		out, err := os.ReadFile(srv.log)
		return err == nil && bytes.Contains(out, []byte("Stop it with"))
	})
	secret, err := os.ReadFile(filepath.Join(dir, "demo", "password"))
	if err != nil {
		t.Fatal(err)
	}
	people := []string{"@anna:" + acme, "@erik:" + globex}
	for _, id := range people {
		if out, err := os.ReadFile(srv.log); err != nil || !bytes.Contains(out, []byte(id)) {
			t.Errorf("the demo does not print %s (%v)", id, err)
		}
	}
	s := script{"demo", []string{filepath.Join("node_modules", ".bin", "node"), "jssdk/demo.mjs"}}
	runScript(t, s, filepath.Join("output", "demo"), strings.TrimSpace(string(secret)), people,
		"HANSA_URL="+srv.url, "HANSA_BOB_URL=http://"+net.JoinHostPort("localhost", port))
	srv.stop(t)
	srv.checkLog(t)
}

// runScript runs one scenario for two people and shows what it printed if it fails.
func runScript(t *testing.T, s script, output, password string, people []string, env ...string) {
	t.Helper()
	if err := os.MkdirAll(output, 0o755); err != nil {
		t.Fatal(err)
	}
	output, err := filepath.Abs(output)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), scriptTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.command[0], s.command[1:]...)
	cmd.Env = slices.Concat(os.Environ(), env, []string{
		"HANSA_ALICE=" + people[0], "HANSA_ALICE_PASSWORD=" + password,
		"HANSA_BOB=" + people[1], "HANSA_BOB_PASSWORD=" + password,
		"HANSA_CLIENT_OUTPUT=" + output,
		"HANSA_CLIENT_PATIENCE_MS=60000",
	})
	ownGroup(cmd)
	out, err := cmd.CombinedOutput()
	if writeErr := os.WriteFile(filepath.Join(output, s.name+".log"), out, 0o644); writeErr != nil {
		t.Error(writeErr)
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("not done after %s: %w", scriptTime, err)
	}
	if err != nil {
		t.Errorf("%s: %v\n%s", strings.Join(s.command, " "), err, out)
	}
}

// ownGroup lets a command and what it starts (a browser has many processes) end together.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
}

// checkTools fails, with the way to install them, when a tool is missing.
func checkTools(t *testing.T) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "../setup/install.sh", "--check").CombinedOutput()
	if err != nil {
		t.Fatalf("the real clients are not installed; run test/setup/install.sh\n%s", out)
	}
}

// buildServer compiles the server and returns the path of its binary.
func buildServer(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "hansa")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "hansa/cmd/hansa").CombinedOutput()
	if err != nil {
		t.Fatalf("build the server: %v\n%s", err, out)
	}
	return binary
}

// postgresDatabase makes an empty database in the cluster of HANSA_TEST_POSTGRES and returns its URL.
func postgresDatabase(t *testing.T) string {
	t.Helper()
	base := os.Getenv("HANSA_TEST_POSTGRES")
	if base == "" {
		t.Fatal("HANSA_TEST_POSTGRES is not set; run this with: test/setup/postgres.sh run go test ./test/clients")
	}
	u, err := url.Parse(base)
	if err != nil {
		t.Fatalf("HANSA_TEST_POSTGRES: %v", err)
	}
	db, err := sql.Open("pgx", base)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	name := fmt.Sprintf("clients_%d_%d", os.Getpid(), time.Now().UnixNano())
	if _, err := db.Exec("CREATE DATABASE " + pgx.Identifier{name}.Sanitize()); err != nil {
		t.Fatalf("create a database at HANSA_TEST_POSTGRES: %v", err)
	}
	t.Cleanup(func() {
		if _, err := db.Exec("DROP DATABASE " + pgx.Identifier{name}.Sanitize() + " WITH (FORCE)"); err != nil {
			t.Errorf("drop the database: %v", err)
		}
	})
	u.Path = "/" + name
	return u.String()
}

// errorLines returns the lines of a JSON log that a person would have to look at, and panics. That the rules had no time to decide says
// that the machine was too busy, and not that anything is wrong.
func errorLines(log []byte) []string {
	var bad []string
	scanner := bufio.NewScanner(bytes.NewReader(log))
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		line := scanner.Text()
		if strings.Contains(line, "rules took too long") {
			continue
		}
		for _, mark := range []string{`"level":"error"`, `"level":"fatal"`, `"level":"panic"`, "panic:", "DATA RACE"} {
			if strings.Contains(line, mark) {
				bad = append(bad, line)
				break
			}
		}
	}
	return bad
}
