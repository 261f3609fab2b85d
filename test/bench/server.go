package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// server is the nodes of a deployment that this program started.
type server struct {
	urls  []string
	dir   string
	nodes []*node
}

// node is one hansa process.
type node struct {
	url  string
	cmd  *exec.Cmd
	done chan error
}

// startServer makes a new deployment in a temporary directory and serves it: open registration, no rate limits.
func startServer(ctx context.Context, binary, store string, o options, log io.Writer) (*server, error) {
	dir, err := os.MkdirTemp("", "hansa-bench-")
	if err != nil {
		return nil, err
	}
	s := &server{dir: dir}
	if err := s.start(ctx, binary, store, o, log); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *server) start(ctx context.Context, binary, store string, o options, log io.Writer) error {
	database := "sqlite:" + filepath.Join(s.dir, "hansa.db")
	switch store {
	case "sqlite":
		if o.nodes > 1 {
			return fmt.Errorf("several nodes need postgres")
		}
	case "postgres":
		var err error
		if database, err = createDatabase(ctx, "bench_"+o.shape.name); err != nil {
			return err
		}
	default:
		return fmt.Errorf("there is no database %q, but sqlite and postgres", store)
	}
	initialize := exec.CommandContext(ctx, binary, "init", "--dir", s.dir, "--database", database, "--tenant", "bench.localhost")
	if out, err := initialize.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", initialize, err, out)
	}
	for i := range max(o.nodes, 1) {
		n, err := s.startNode(ctx, binary, i, o, log)
		if err != nil {
			return err
		}
		s.urls = append(s.urls, n.url)
	}
	return nil
}

func (s *server) startNode(ctx context.Context, binary string, i int, o options, log io.Writer) (*node, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	logFile, err := os.Create(filepath.Join(s.dir, fmt.Sprint("log", i)))
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	n := &node{url: "http://" + address, done: make(chan error, 1)}
	n.cmd = exec.Command(binary, "serve", "-c", filepath.Join(s.dir, "hansa.yaml"))
	n.cmd.Env = append(os.Environ(), "HANSA_TENANTS_0_REGISTRATION=open", "HANSA_LIMITS_ENABLED=false",
		"HANSA_LISTEN_CLIENT="+address, "HANSA_LISTEN_ADMIN=", "HANSA_NATS="+o.nats, fmt.Sprintf("HANSA_DATA_DIR=%s/node%d", s.dir, i))
	n.cmd.Stdout, n.cmd.Stderr = logFile, logFile
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { n.done <- n.cmd.Wait() }()
	s.nodes = append(s.nodes, n)
	if err := n.wait(ctx); err != nil {
		text, _ := os.ReadFile(logFile.Name()) // what there is of it helps to explain err
		fmt.Fprintf(log, "%s", text)
		return nil, err
	}
	return n, nil
}

// wait returns when the server answers.
func (n *node) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.url+"/_matrix/client/versions", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close() // only the status matters
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case err := <-n.done:
			n.done <- err
			return fmt.Errorf("the server ended: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("the server does not answer: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *server) pids() []int {
	var out []int
	for _, n := range s.nodes {
		out = append(out, n.cmd.Process.Pid)
	}
	return out
}

// stop ends the processes and removes their files.
func (s *server) stop() {
	for _, n := range s.nodes {
		_ = n.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
		select {
		case <-n.done:
		case <-time.After(20 * time.Second):
			_ = n.cmd.Process.Kill()
			<-n.done
		}
	}
	_ = os.RemoveAll(s.dir) // a temporary directory
}

// freeAddress returns an address that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// createDatabase makes an empty database in the service that HANSA_TEST_POSTGRES names and returns its URL.
func createDatabase(ctx context.Context, name string) (string, error) {
	service := os.Getenv("HANSA_TEST_POSTGRES")
	if service == "" {
		return "", fmt.Errorf("HANSA_TEST_POSTGRES names no PostgreSQL; run this below test/setup/postgres.sh run")
	}
	u, err := url.Parse(service)
	if err != nil {
		return "", fmt.Errorf("HANSA_TEST_POSTGRES is not a URL")
	}
	psql := exec.CommandContext(ctx, "psql", "-q", "-X", "-v", "ON_ERROR_STOP=1", "-d", service,
		"-c", "DROP DATABASE IF EXISTS "+name, "-c", "CREATE DATABASE "+name)
	if out, err := psql.CombinedOutput(); err != nil {
		return "", fmt.Errorf("create database %s: %w: %s", name, err, out)
	}
	u.Path = "/" + name
	return u.String(), nil
}

// usage is what a process has used so far.
type usage struct{ cpuSeconds, rssMB float64 }

// readUsage reads the usage of processes from /proc; without one it is zero.
func readUsage(pids ...int) (sum usage) {
	for _, pid := range pids {
		u := usageOf(pid)
		sum.cpuSeconds += u.cpuSeconds
		sum.rssMB += u.rssMB
	}
	return sum
}

func usageOf(pid int) usage {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if pid == 0 || err != nil {
		return usage{}
	}
	_, rest, ok := bytes.Cut(text, []byte(") "))
	fields := strings.Fields(string(rest))
	if !ok || len(fields) < 22 {
		return usage{}
	}
	number := func(i int) float64 {
		n, _ := strconv.ParseFloat(fields[i], 64) // the kernel writes numbers
		return n
	}
	const ticksPerSecond, pageMB = 100, 4096 / 1e6
	return usage{cpuSeconds: (number(11) + number(12)) / ticksPerSecond, rssMB: number(21) * pageMB}
}
