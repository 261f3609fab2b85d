package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"hansa/homeserver/adminapi"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"hansa": main})
}

// The scripts of test/scenarios tell what people do, with the real commands and a real server. Besides what testscript knows they have
//
//	ready dir                    waits until the server of that deployment answers
//	[!] login name user password logs in and puts the access token into $name
//	[!] http METHOD path [$token] [body]   makes a request; the answer is the standard output, the status the standard error
//	until pattern cmd ...        runs a command until its output matches, for at most ten seconds
//	exit code cmd ...            runs a command that has to end with this exit status
//	ports NAME ...               finds free ports
//	field NAME member            puts a member of the last JSON answer (standard output) into $NAME
func TestScenarios(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{Dir: "../../test/scenarios", Setup: setup, RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"ready": cmdReady, "login": cmdLogin, "http": cmdHTTP, "until": cmdUntil, "exit": cmdExit, "ports": cmdPorts, "field": cmdField}})
}

// setup gives every script ports of its own and no rate limits.
func setup(env *testscript.Env) error {
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	env.Setenv("PORT", ports[0])
	env.Setenv("ADMIN", ports[1])
	env.Setenv("HANSA_LISTEN_CLIENT", "127.0.0.1:"+ports[0])
	env.Setenv("HANSA_LISTEN_ADMIN", "127.0.0.1:"+ports[1])
	env.Setenv("HANSA_LIMITS_ENABLED", "false")
	return nil
}

// portsTried is how many ports freePorts has looked at.
var portsTried atomic.Int64

// freePorts finds ports that nobody listens on, and none twice. They lie below those that the system gives to whoever does not ask for one: one of
// these might be given to somebody else before a server listens there.
func freePorts(n int) ([]string, error) {
	var out []string
	for tries := 0; len(out) < n; tries++ {
		port := strconv.FormatInt(11000+(97*int64(os.Getpid())+portsTried.Add(1))%20000, 10)
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			if tries > 1000 {
				return nil, err
			}
			continue
		}
		_ = l.Close() // it never accepted anything
		out = append(out, port)
	}
	return out, nil
}

func cmdPorts(ts *testscript.TestScript, _ bool, args []string) {
	ports, err := freePorts(len(args))
	ts.Check(err)
	for i, name := range args {
		ts.Setenv(name, ports[i])
	}
}

// poll calls try every 20 ms until it is done, for at most the given time.
func poll(limit time.Duration, try func() bool) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.After(limit)
	for {
		if try() {
			return true
		}
		select {
		case <-tick.C:
		case <-end:
			return try()
		}
	}
}

func cmdReady(ts *testscript.TestScript, _ bool, args []string) {
	socket := ts.MkAbs(args[0] + "/data/admin.sock")
	ok := poll(time.Minute, func() bool {
		c, err := adminapi.DialSocket(context.Background(), socket)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	if !ok {
		ts.Fatalf("no server answers on %s", socket)
	}
}

func cmdLogin(ts *testscript.TestScript, neg bool, args []string) {
	body, err := json.Marshal(map[string]any{"type": "m.login.password", "password": args[2], "identifier": map[string]string{"type": "m.id.user", "user": args[1]}})
	ts.Check(err)
	status, answer := request(ts, "POST", "/_matrix/client/v3/login", "", string(body))
	if neg != (status != http.StatusOK) {
		ts.Fatalf("login of %s: %d %s", args[1], status, answer)
	}
	var a struct {
		Token string `json:"access_token"`
	}
	if json.Unmarshal(answer, &a) == nil {
		ts.Setenv(args[0], a.Token)
	}
	_, _ = ts.Stdout().Write(answer) // a buffer
}

func cmdHTTP(ts *testscript.TestScript, neg bool, args []string) {
	for len(args) < 4 {
		args = append(args, "")
	}
	status, answer := request(ts, args[0], args[1], args[2], args[3])
	_, _ = ts.Stdout().Write(answer)
	_, _ = fmt.Fprintf(ts.Stderr(), "status %d\n", status)
	if neg != (status != http.StatusOK) {
		ts.Fatalf("%s %s: %d %s", args[0], args[1], status, answer)
	}
}

// request sends to the client listener, or for paths of the admin API to the admin listener.
func request(ts *testscript.TestScript, method, path, token, body string) (int, []byte) {
	port := ts.Getenv("PORT")
	if strings.HasPrefix(path, "/_hansa") || !strings.HasPrefix(path, "/_matrix") && !strings.HasPrefix(path, "/.well-known") {
		port = ts.Getenv("ADMIN")
	}
	req, err := http.NewRequest(method, "http://127.0.0.1:"+port+path, strings.NewReader(body))
	ts.Check(err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	ts.Check(err)
	return resp.StatusCode, answer
}

// capture runs a command of the script's world and returns all that it printed.
func capture(ts *testscript.TestScript, args []string) (string, error) {
	cmd := exec.Command(lookup(ts, args[0]), args[1:]...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "HANSA_LISTEN_CLIENT", "HANSA_LISTEN_ADMIN", "HANSA_LIMITS_ENABLED"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

func lookup(ts *testscript.TestScript, name string) string {
	for _, dir := range strings.Split(ts.Getenv("PATH"), string(os.PathListSeparator)) {
		if p := dir + "/" + name; isFile(p) {
			return p
		}
	}
	return name
}

func isFile(name string) bool { info, err := os.Stat(name); return err == nil && !info.IsDir() }

func cmdUntil(ts *testscript.TestScript, _ bool, args []string) {
	re := regexp.MustCompile(args[0])
	var out string
	start := time.Now()
	if !poll(time.Minute, func() bool {
		out, _ = capture(ts, args[1:]) // it may fail until it succeeds
		return re.MatchString(out)
	}) {
		ts.Fatalf("%s does not say %s after a minute, but: %s", strings.Join(args[1:], " "), args[0], out)
	}
	ts.Logf("after %s", time.Since(start).Round(time.Millisecond))
	_, _ = io.WriteString(ts.Stdout(), out)
}

func cmdExit(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	out, err := capture(ts, args[1:])
	code := 0
	var e *exec.ExitError
	if errors.As(err, &e) {
		code = e.ExitCode()
	} else {
		ts.Check(err)
	}
	_, _ = io.WriteString(ts.Stdout(), out)
	if code != want {
		ts.Fatalf("%s: exit status %d, want %d\n%s", strings.Join(args[1:], " "), code, want, out)
	}
}

func cmdField(ts *testscript.TestScript, _ bool, args []string) {
	var v any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &v))
	for _, name := range strings.Split(args[1], "/") {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	s, ok := v.(string)
	if !ok {
		ts.Fatalf("the answer has no text %s", args[1])
	}
	ts.Setenv(args[0], s)
}
