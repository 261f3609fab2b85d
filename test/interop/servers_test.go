//go:build interop

package interop_test

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hansa/matrix/signing"
	"hansa/outbound/outboundtest"
	"hansa/storage/storagetest"
)

const (
	hansaName   = "hansa.example"
	synapseName = "synapse.example"
	hansaIP     = "127.77.1.1"
	synapseIP   = "127.77.1.2"
	password    = "correct horse battery staple"
	secret      = "shared-secret-of-the-test"
)

// process is a server that can be stopped and started again.
type process struct {
	t     *testing.T
	name  string
	log   string
	make  func() *exec.Cmd
	ready string // answers 200 when it is ready
	cmd   *exec.Cmd
	done  chan error
}

func (p *process) start() {
	p.t.Helper()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd, p.done = p.make(), make(chan error, 1)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	cmd, done := p.cmd, p.done
	go func() {
		done <- cmd.Wait()
		_ = log.Close() // nobody writes to it any more
	}()
	until(p.t, p.name+" is ready", func() error {
		resp, err := http.Get(p.ready)
		if err != nil {
			return err
		}
		_ = resp.Body.Close() // only the status counts
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", resp.StatusCode)
		}
		return nil
	})
}

func (p *process) stop() {
	p.t.Helper()
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		p.t.Errorf("%s does not stop", p.name)
		_ = p.cmd.Process.Kill() // the last resort
		<-p.done
	}
	p.cmd = nil
}

// cell is the two servers.
type cell struct {
	t       *testing.T
	dir     string
	hansa   *process
	synapse *process
	binary  string
	config  string
	txn     int
}

func newCell(t *testing.T, database string) *cell {
	t.Helper()
	out, err := exec.Command("./setup.sh").Output()
	if err != nil {
		t.Fatalf("setup.sh: %v", err)
	}
	root := strings.TrimSpace(string(out))
	c := &cell{t: t, dir: t.TempDir()}
	ca := outboundtest.New(t)
	c.startHansa(ca, database)
	c.startSynapse(ca, root)
	t.Cleanup(func() {
		c.hansa.stop()
		c.synapse.stop()
		if t.Failed() {
			t.Logf("the end of Hansa's log:\n%s", tail(c.hansa.log, 40))
			t.Logf("the end of Synapse's log:\n%s", tail(c.synapse.log, 80))
		}
		if keep := os.Getenv("HANSA_INTEROP_LOGS"); keep != "" {
			for _, p := range []*process{c.hansa, c.synapse} {
				data, err := os.ReadFile(p.log)
				if err == nil {
					err = os.WriteFile(filepath.Join(keep, p.name+"-"+database+".log"), data, 0o600)
				}
				if err != nil {
					t.Error(err)
				}
			}
		}
	})
	return c
}

func tail(path string, n int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// certificate writes a certificate for a name into a folder.
func certificate(t *testing.T, ca *outboundtest.Authority, dir, name string) (cert, key string, pair tls.Certificate) {
	t.Helper()
	pair = ca.Issue(t, time.Now().Add(24*time.Hour), name)
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "tls.pem"), filepath.Join(dir, "tls.key")
	write(t, cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})))
	write(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	return cert, key, pair
}

// startHansa makes a deployment with the commands that an operator would type, but for the part that joins it to the test's network.
func (c *cell) startHansa(ca *outboundtest.Authority, database string) {
	c.t.Helper()
	if c.binary = os.Getenv("HANSA_BINARY"); c.binary == "" {
		c.binary = filepath.Join(c.dir, "hansa")
		if out, err := exec.Command("go", "build", "-o", c.binary, "hansa/cmd/hansa").CombinedOutput(); err != nil {
			c.t.Fatalf("build the server: %v\n%s", err, out)
		}
	}
	dir := filepath.Join(c.dir, "deployment")
	c.config = filepath.Join(dir, "hansa.yaml")
	args := []string{"init", "--dir", dir, "--tenant", hansaName}
	if database != "sqlite" { // which is what it is without a word
		args = append(args, "--database", storagetest.URL(c.t, database))
	}
	c.verb("", args...)
	cert, key, pair := certificate(c.t, ca, filepath.Join(dir, "tls"), hansaName)
	text, err := os.ReadFile(c.config)
	if err != nil {
		c.t.Fatal(err)
	}
	for old, new := range map[string]string{
		"certificate: \"\"":                "certificate: " + cert,
		"key: \"\"":                        "key: " + key,
		"federation: \"\"":                 "federation: " + hansaIP + ":8448",
		"trusted_ca_file: \"\"":            "trusted_ca_file: " + ca.File,
		"servers: []":                      fmt.Sprintf("servers: [{name: %s, address: \"%s:8448\"}]", synapseName, synapseIP),
		"limits:\n":                        "limits:\n",
		"client: 127.0.0.1:8008":           "client: " + hansaIP + ":8008",
		"admin: 127.0.0.1:8009":            "admin: " + hansaIP + ":8009",
		"public_url: https://" + hansaName: "public_url: http://" + hansaIP + ":8008",
	} {
		if !bytes.Contains(text, []byte(old)) {
			c.t.Fatalf("%s has no %q:\n%s", c.config, old, text)
		}
		text = bytes.Replace(text, []byte(old), []byte(new), 1)
	}
	write(c.t, c.config, string(text))
	c.hansa = &process{t: c.t, name: "hansa", log: filepath.Join(c.dir, "hansa.log"), ready: "http://" + hansaIP + ":8009/readyz", make: func() *exec.Cmd {
		cmd := exec.Command(c.binary, "serve", "-c", c.config)
		cmd.Env = append(os.Environ(), "HANSA_LIMITS_ENABLED=false")
		return cmd
	}}
	c.hansa.start()
	c.verb("", "partner", "approve", hansaName, synapseName, "-c", c.config)
	wellKnown(c.t, hansaIP, hansaName, pair)
}

// wellKnown serves the file that says where the federation of a name is.
func wellKnown(t *testing.T, ip, name string, pair tls.Certificate) {
	t.Helper()
	l, err := tls.Listen("tcp", net.JoinHostPort(ip, "443"), &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"m.server": "%s:8448"}`, name)
	})}
	go func() { _ = s.Serve(l) }() // ends with Close
	t.Cleanup(func() { _ = s.Close() })
}

// verb runs a command of hansa to its end.
func (c *cell) verb(input string, args ...string) string {
	c.t.Helper()
	cmd := exec.Command(c.binary, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Fatalf("hansa %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

const synapseConfig = `
server_name: synapse.example
public_baseurl: http://IP:8008/
pid_file: DIR/pid
log_config: DIR/log.yaml
signing_key_path: DIR/signing.key
media_store_path: DIR/media
registration_shared_secret: SECRET
macaroon_secret_key: SECRET
form_secret: SECRET
tls_certificate_path: DIR/tls.pem
tls_private_key_path: DIR/tls.key
federation_custom_ca_list: [DIR/ca.pem]
ip_range_blacklist: []
trusted_key_servers: []
suppress_key_server_warning: true
report_stats: false
allow_public_rooms_over_federation: true
presence: {enabled: true}
room_list_publication_rules: [{action: allow}]
database: {name: sqlite3, args: {database: DIR/homeserver.db}}
listeners:
  - {port: 8448, bind_addresses: ["IP"], type: http, tls: true, resources: [{names: [federation]}]}
  - {port: 8008, bind_addresses: ["IP"], type: http, tls: false, resources: [{names: [client]}]}
federation: {destination_min_retry_interval: 1s, destination_retry_multiplier: 1, destination_max_retry_interval: 2s, client_timeout: 20s}
rc_message: {per_second: 1000, burst_count: 1000}
rc_registration: {per_second: 1000, burst_count: 1000}
rc_login: {address: {per_second: 1000, burst_count: 1000}, account: {per_second: 1000, burst_count: 1000}, failed_attempts: {per_second: 1000, burst_count: 1000}}
rc_joins: {local: {per_second: 1000, burst_count: 1000}, remote: {per_second: 1000, burst_count: 1000}}
rc_joins_per_room: {per_second: 1000, burst_count: 1000}
rc_invites: {per_room: {per_second: 1000, burst_count: 1000}, per_user: {per_second: 1000, burst_count: 1000}, per_issuer: {per_second: 1000, burst_count: 1000}}
rc_key_requests: {per_second: 1000, burst_count: 1000}
rc_room_creation: {per_second: 1000, burst_count: 1000}
rc_federation: {window_size: 1000, sleep_limit: 1000, sleep_delay: 1, reject_limit: 1000, concurrent: 100}
`

const synapseLog = `
version: 1
disable_existing_loggers: false
formatters: {plain: {format: "%(asctime)s %(levelname)s %(name)s %(request)s %(message)s"}}
handlers: {console: {class: logging.StreamHandler, formatter: plain}}
root: {level: LEVEL, handlers: [console]}
loggers: {synapse.access: {level: INFO}}
`

func (c *cell) startSynapse(ca *outboundtest.Authority, root string) {
	c.t.Helper()
	inside, err := os.MkdirTemp(filepath.Join(root, "srv"), "synapse-")
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := os.RemoveAll(inside); err != nil {
			c.t.Error(err)
		}
	})
	dir := strings.TrimPrefix(inside, root) // as Synapse sees it
	level := os.Getenv("HANSA_INTEROP_SYNAPSE_LOG")
	if level == "" {
		level = "WARNING"
	}
	_, _, pair := certificate(c.t, ca, inside, synapseName)
	authority, err := os.ReadFile(ca.File)
	if err != nil {
		c.t.Fatal(err)
	}
	key, err := signing.Generate(rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	fill := strings.NewReplacer("DIR", dir, "IP", synapseIP, "SECRET", secret, "LEVEL", level)
	write(c.t, filepath.Join(inside, "ca.pem"), string(authority))
	write(c.t, filepath.Join(inside, "signing.key"), string(signing.FormatKeyFile(key)))
	write(c.t, filepath.Join(inside, "log.yaml"), fill.Replace(synapseLog))
	write(c.t, filepath.Join(inside, "homeserver.yaml"), fill.Replace(synapseConfig))
	write(c.t, filepath.Join(root, "etc/hosts"), fmt.Sprintf("127.0.0.1 localhost\n%s %s\n%s %s\n", hansaIP, hansaName, synapseIP, synapseName))
	write(c.t, filepath.Join(root, "etc/resolv.conf"), "") // no DNS: nothing leaves this machine
	c.synapse = &process{t: c.t, name: "synapse", log: filepath.Join(c.dir, "synapse.log"), ready: "http://" + synapseIP + ":8008/health", make: func() *exec.Cmd {
		cmd := exec.Command("chroot", root, "/usr/bin/python3", "-m", "synapse.app.homeserver", "--config-path", dir+"/homeserver.yaml")
		cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/bin:/bin", "HOME=" + dir, "LANG=C.UTF-8"}
		return cmd
	}}
	c.synapse.start()
	wellKnown(c.t, synapseIP, synapseName, pair)
}
