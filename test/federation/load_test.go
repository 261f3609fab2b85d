package federation_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hansa/test/hstest"
)

// A load is made by another process, so that what a server spends can be told from what those spend who load it. Everything that it sends
// was made and signed before.

// loadEnv names the variable that makes a load generator of this program.
const loadEnv = "HANSA_TEST_LOAD"

func TestMain(m *testing.M) {
	if os.Getenv(loadEnv) != "" {
		if err := generate(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if theBuild.dir != "" {
		_ = os.RemoveAll(theBuild.dir) // a temporary folder
	}
	os.Exit(code)
}

// peers are the servers that a generator listens for: each has an answer about its keys and says yes to every transaction.
type peers struct {
	Address, CertFile, KeyFile string
	Keys                       map[string][]byte // by server name
	// Dial is where requests go: the addresses of host names. CAFile is whom their certificates are checked against.
	Dial   map[string]string
	CAFile string
}

// shot is one request of a load.
type shot struct {
	// Lane names who makes it: one request after the other.
	Lane string
	// At is when it is due, counted from the beginning; 0 means at once after the one before it.
	At                  time.Duration
	Kind                string
	Method, URL, Header string
	Body                []byte
}

// outcome is how a load went: how long the requests of each kind took, from when they were due.
type outcome struct {
	Took    map[string][]time.Duration
	Elapsed time.Duration
	Failed  []string
	CPU     time.Duration // of the generator
}

// generator is the process that makes loads.
type generator struct {
	t   testing.TB
	in  io.WriteCloser
	enc *json.Encoder
	dec *json.Decoder
}

// newGenerator starts a generator.
func newGenerator(t testing.TB, p peers) *generator {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), loadEnv+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	g := &generator{t: t, in: in, enc: json.NewEncoder(in), dec: json.NewDecoder(bufio.NewReader(out))}
	t.Cleanup(func() {
		_ = in.Close() // ends it
		if err := cmd.Wait(); err != nil {
			t.Errorf("the load generator: %v", err)
		}
	})
	if err := g.enc.Encode(p); err != nil {
		t.Fatal(err)
	}
	var ready bool
	if err := g.dec.Decode(&ready); err != nil {
		t.Fatal(err)
	}
	return g
}

// run makes a load. before is called when everything is ready.
func (g *generator) run(list []shot, before func()) outcome {
	g.t.Helper()
	if err := g.enc.Encode(list); err != nil {
		g.t.Fatal(err)
	}
	var ready bool
	if err := g.dec.Decode(&ready); err != nil {
		g.t.Fatal(err)
	}
	before()
	if err := g.enc.Encode(true); err != nil {
		g.t.Fatal(err)
	}
	var o outcome
	if err := g.dec.Decode(&o); err != nil {
		g.t.Fatal(err)
	}
	for i, f := range o.Failed {
		if i < 5 {
			g.t.Error(f)
		}
	}
	if len(o.Failed) > 5 {
		g.t.Errorf("and %d requests more failed", len(o.Failed)-5)
	}
	return o
}

// generate is the other process.
func generate(in io.Reader, out io.Writer) error {
	dec, enc := json.NewDecoder(bufio.NewReader(in)), json.NewEncoder(out)
	var p peers
	if err := dec.Decode(&p); err != nil {
		return err
	}
	l, err := net.Listen("tcp", p.Address)
	if err != nil {
		return err
	}
	defer l.Close()
	srv := &http.Server{Handler: http.HandlerFunc(p.serve), ReadHeaderTimeout: time.Minute}
	go func() { _ = srv.ServeTLS(l, p.CertFile, p.KeyFile) }() // it ends with the process
	client, err := p.client()
	if err != nil {
		return err
	}
	if err := enc.Encode(true); err != nil {
		return err
	}
	for {
		var list []shot
		if err := dec.Decode(&list); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := enc.Encode(true); err != nil {
			return err
		}
		var begin bool
		if err := dec.Decode(&begin); err != nil {
			return err
		}
		if err := enc.Encode(fire(client, list)); err != nil {
			return err
		}
	}
}

func (p *peers) serve(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/_matrix/key/v2/server" && p.Keys[r.Host] != nil:
		_, _ = w.Write(p.Keys[r.Host])
	case strings.HasPrefix(r.URL.Path, "/_matrix/federation/v1/send/"):
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"pdus":{}}`)
	default:
		http.NotFound(w, r)
	}
}

func (p *peers) client() (*http.Client, error) {
	ca, err := os.ReadFile(p.CAFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	dialer := &net.Dialer{}
	return &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, MaxIdleConnsPerHost: 1000,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if host, _, err := net.SplitHostPort(address); err == nil && p.Dial[host] != "" {
				address = p.Dial[host]
			}
			return dialer.DialContext(ctx, network, address)
		}}}, nil
}

// fire makes the requests, those of each lane one after the other.
func fire(client *http.Client, list []shot) outcome {
	lanes := map[string][]shot{}
	for _, s := range list {
		lanes[s.Lane] = append(lanes[s.Lane], s)
	}
	o := outcome{Took: map[string][]time.Duration{}}
	var mu sync.Mutex // guards o
	var wg sync.WaitGroup
	begin, cpu := time.Now(), spentHere()
	for _, lane := range lanes {
		wg.Go(func() {
			for _, s := range lane {
				due := time.Now()
				if s.At > 0 {
					due = begin.Add(s.At)
					<-time.After(time.Until(due))
				}
				err := s.do(client)
				took := time.Since(due)
				mu.Lock()
				o.Took[s.Kind] = append(o.Took[s.Kind], took)
				if err != nil {
					o.Failed = append(o.Failed, err.Error())
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	o.Elapsed, o.CPU = time.Since(begin), spentHere()-cpu
	return o
}

func (s *shot) do(client *http.Client) error {
	req, err := http.NewRequest(s.Method, s.URL, bytes.NewReader(s.Body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", s.Header)
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != 200 || bytes.Contains(text, []byte(`"error"`))) {
		err = fmt.Errorf("%s %s: %d %.300s", s.Method, s.URL, resp.StatusCode, text)
	}
	return err
}

// spentHere is the processor time of this process.
func spentHere() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// quantile is the time that a share of the requests took at most.
func quantile(list []time.Duration, share float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	list = slices.Clone(list)
	slices.Sort(list)
	return list[min(len(list)-1, int(share*float64(len(list))))]
}

// elsewhere makes a generator that stands for a crowd.
func elsewhere(t testing.TB, f *hstest.Federation, n int) ([]*hstest.Outsider, *generator) {
	t.Helper()
	list, address, certFile, keyFile := f.CrowdElsewhere(n)
	p := peers{Address: address, CertFile: certFile, KeyFile: keyFile, CAFile: f.CAFile, Keys: map[string][]byte{}, Dial: map[string]string{}}
	for _, s := range f.Servers {
		p.Dial[string(s.Config.Tenants[0].Name)] = s.Config.Listen.Federation
	}
	for _, o := range list {
		p.Keys[string(o.Name)] = o.Keys(time.Now().Add(24 * time.Hour))
	}
	return list, newGenerator(t, p)
}
