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

// server is a hansa process that this program started.
type server struct {
	url  string
	dir  string
	cmd  *exec.Cmd
	done chan error
}

// startServer makes a new deployment in a temporary directory and serves it: open registration, no rate limits.
func startServer(ctx context.Context, binary, store, name string, log io.Writer) (*server, error) {
	dir, err := os.MkdirTemp("", "hansa-bench-")
	if err != nil {
		return nil, err
	}
	s := &server{dir: dir, done: make(chan error, 1)}
	if err := s.start(ctx, binary, store, name, log); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *server) start(ctx context.Context, binary, store, name string, log io.Writer) error {
	database := "sqlite:" + filepath.Join(s.dir, "hansa.db")
	switch store {
	case "sqlite":
	case "postgres":
		var err error
		if database, err = createDatabase(ctx, "bench_"+name); err != nil {
			return err
		}
	default:
		return fmt.Errorf("there is no database %q, but sqlite and postgres", store)
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	initialize := exec.CommandContext(ctx, binary, "init", "--dir", s.dir, "--database", database, "--tenant", "bench.localhost")
	if out, err := initialize.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", initialize, err, out)
	}
	logFile, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return err
	}
	defer logFile.Close()
	s.url = "http://" + address
	s.cmd = exec.Command(binary, "serve", "-c", filepath.Join(s.dir, "hansa.yaml"))
	s.cmd.Env = append(os.Environ(), "HANSA_TENANTS_0_REGISTRATION=open", "HANSA_LIMITS_ENABLED=false",
		"HANSA_LISTEN_CLIENT="+address, "HANSA_LISTEN_ADMIN=")
	s.cmd.Stdout, s.cmd.Stderr = logFile, logFile
	if err := s.cmd.Start(); err != nil {
		s.cmd = nil
		return err
	}
	go func() { s.done <- s.cmd.Wait() }()
	if err := s.wait(ctx); err != nil {
		text, _ := os.ReadFile(logFile.Name()) // what there is of it helps to explain err
		fmt.Fprintf(log, "%s", text)
		return err
	}
	return nil
}

// wait returns when the server answers.
func (s *server) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/_matrix/client/versions", nil)
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
		case err := <-s.done:
			s.done <- err
			return fmt.Errorf("the server ended: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("the server does not answer: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *server) pid() int { return s.cmd.Process.Pid }

// stop ends the process and removes its files.
func (s *server) stop() {
	if s.cmd != nil {
		_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
		select {
		case <-s.done:
		case <-time.After(20 * time.Second):
			_ = s.cmd.Process.Kill()
			<-s.done
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

// readUsage reads the usage of a process from /proc; without one it is zero.
func readUsage(pid int) usage {
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
