package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"hansa/matrix"
)

const minimal = "tenants: [{name: acme.example}]\n"

func parse(t *testing.T, text string, environ ...string) *Config {
	t.Helper()
	c, err := Parse("/etc/hansa/hansa.yaml", []byte(text), environ)
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	return c
}

func TestParse_Defaults(t *testing.T) {
	t.Parallel()
	got := parse(t, minimal)
	want := &Config{
		DataDir:  "/etc/hansa/data",
		Database: "sqlite:/etc/hansa/data/hansa.db",
		Listen:   Listen{Client: "127.0.0.1:8008", TrustedProxies: []string{}, Admin: "127.0.0.1:8009"},
		Tenants: []Tenant{{
			Name: "acme.example", SigningKeyFile: "/etc/hansa/keys/acme.example.key",
			PublicURL: "https://acme.example", Registration: RegistrationClosed,
		}},
		Policy:        Policy{Bundles: []string{"/etc/hansa/policy"}},
		Federation:    Federation{DefaultPartners: []string{}},
		Media:         Media{Path: "/etc/hansa/data/media", MaxUpload: 50 << 20},
		Limits:        Limits{Enabled: true},
		Appservices:   Appservices{Directory: "/etc/hansa/bridges"},
		ShutdownGrace: Duration(10 * time.Second),
	}
	if d := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Config{})); d != "" {
		t.Errorf("defaults (-want +got):\n%s", d)
	}
	if got, want := got.AdminSocket(), "/etc/hansa/data/admin.sock"; got != want {
		t.Errorf("AdminSocket() = %s, want %s", got, want)
	}
}

func TestParse_DataDirCarriesItsContents(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]*Config{
		"file":        parse(t, "data_dir: /var/lib/hansa\n"+minimal),
		"environment": parse(t, minimal, "HANSA_DATA_DIR=/var/lib/hansa"),
	} {
		if c.Database != "sqlite:/var/lib/hansa/hansa.db" || c.Media.Path != "/var/lib/hansa/media" {
			t.Errorf("%s: database %s, media %s", name, c.Database, c.Media.Path)
		}
	}
}

func TestParse_Environment(t *testing.T) {
	t.Parallel()
	c := parse(t, minimal,
		"HANSA_LISTEN_CLIENT=[::1]:9000", "HANSA_LISTEN_ADMIN=", "HANSA_LIMITS_ENABLED=false", "HANSA_MEDIA_MAX_UPLOAD=1GiB",
		"HANSA_POLICY_BUNDLES=/a, /b", "HANSA_TENANTS_0_REGISTRATION=open", "HANSA_TENANTS_1_NAME=Globex.Example:8448",
		"HANSA_DATABASE=postgres://u@db/hansa", "HANSA_PORT=tcp://10.0.0.1:80", "HANSA_TEST_POSTGRES=x", "PATH=/bin")
	if c.Listen.Client != "[::1]:9000" || c.Listen.Admin != "" || c.Limits.Enabled || c.Media.MaxUpload != 1<<30 ||
		c.Database != "postgres://u@db/hansa" {
		t.Errorf("plain values were not taken: %+v", c)
	}
	if d := cmp.Diff([]string{"/a", "/b"}, c.Policy.Bundles); d != "" {
		t.Error(d)
	}
	if len(c.Tenants) != 2 || c.Tenants[0].Registration != RegistrationOpen || c.Tenants[1].Name != "globex.example:8448" {
		t.Errorf("tenants = %+v", c.Tenants)
	}
}

func TestParse_EnvironmentAlone(t *testing.T) {
	t.Parallel()
	if c := parse(t, "", "HANSA_TENANTS_0_NAME=acme.example"); len(c.Tenants) != 1 {
		t.Errorf("tenants = %+v", c.Tenants)
	}
}

func TestParse_Mistakes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, text string
		environ    []string
		want       []string
	}{
		{"unknown key", minimal + "listen:\n  clinet: 1.2.3.4:5\n", nil, []string{"h.yaml:3: listen.clinet: unknown key (did you mean client?)"}},
		{"key of another depth", minimal + "max_upload: 5\n", nil, []string{"h.yaml:2: max_upload: unknown key"}},
		{"unknown variable", minimal, []string{"HANSA_LISTEN_CLEINT=x"}, []string{"environment: HANSA_LISTEN_CLEINT names no key"}},
		{"wrong variable", minimal, []string{"HANSA_LIMITS_ENABLED=on"}, []string{"environment: HANSA_LIMITS_ENABLED: limits.enabled:"}},
		{"no tenants", "data_dir: x\n", nil, []string{"tenants: name at least one"}},
		{"bad name", "tenants:\n- name: a b\n", nil, []string{"h.yaml:2: tenants[0].name:"}},
		{"same name twice", "tenants:\n- name: a.b\n- name: A.B\n", nil, []string{"h.yaml:3: tenants[1].name: a.b is there twice"}},
		{"nameless", "tenants:\n- registration: open\n", nil, []string{"tenants[0].name: must not be empty"}},
		{"shared key", "tenants:\n- {name: a, signing_key_file: k}\n- {name: b, signing_key_file: k}\n", nil, []string{"tenants[1].signing_key_file"}},
		{"registration", "tenants:\n- name: a\n  registration: yes\n", nil, []string{"h.yaml:3: tenants[0].registration:"}},
		{"token without file", "tenants:\n- {name: a, registration: token}\n", nil, []string{"registration_tokens_file: must name a file"}},
		{"public_url", "tenants:\n- {name: a, public_url: 'ftp://x'}\n", nil, []string{"tenants[0].public_url:"}},
		{"public_url with slash", "tenants:\n- {name: a, public_url: 'https://x/'}\n", nil, []string{"slash"}},
		{"size", minimal + "media: {max_upload: 50MB}\n", nil, []string{"h.yaml:2: media.max_upload:"}},
		{"size zero", minimal + "media: {max_upload: 0}\n", nil, []string{"more than 0"}},
		{"duration", minimal + "shutdown_grace: 10\n", nil, []string{"shutdown_grace:"}},
		{"address", minimal + "listen: {client: localhost}\n", nil, []string{"listen.client:"}},
		{"port", minimal + "listen: {client: 'localhost:66000'}\n", nil, []string{"up to 65535"}},
		{"same address", minimal + "listen: {client: 'h:1', admin: 'h:1'}\n", nil, []string{"must differ"}},
		{"database", minimal + "database: mysql://x/y\n", nil, []string{"h.yaml:2: database:"}},
		{"database without name", minimal + "database: postgres://x\n", nil, []string{"names no database"}},
		{"list for value", minimal + "data_dir: [x]\n", nil, []string{"data_dir: needs a plain value, not a list"}},
		{"value for list", minimal + "policy: {bundles: x}\n", nil, []string{"policy.bundles: needs a list"}},
		{"value for section", minimal + "limits: true\n", nil, []string{"limits: needs a mapping"}},
		{"no bundles", minimal + "policy: {bundles: []}\n", nil, []string{"policy.bundles: name at least one"}},
		{"federation listener without certificate", minimal + "listen: {federation: '0.0.0.0:8448'}\n", nil, []string{"tls.certificate"}},
		{"certificate without key", minimal + "tls: {certificate: c.pem}\n", nil, []string{"tls: needs both"}},
		{"default partner", minimal + "federation: {default_partners: ['a b']}\n", nil, []string{"federation.default_partners[0]"}},
		{"remote server", minimal + "federation: {servers: [{address: x, pins: [y]}]}\n", nil, []string{"federation.servers[0].name", "federation.servers[0].address", "federation.servers[0].pins"}},
		{"nats with sqlite", minimal + "nats: 'nats://h:4222'\n", nil, []string{"nats: is for several nodes"}},
		{"nats scheme", minimal + "database: postgres://h/d\nnats: 'http://h'\n", nil, []string{"h.yaml:3: nats: must be nats://"}},
		{"anchor", "data_dir: &x y\n", nil, []string{"h.yaml:1:", "not supported"}},
		{"duplicate key", "data_dir: x\ndata_dir: y\n", nil, []string{"h.yaml:2:", "data_dir"}},
		{"two documents", minimal + "---\n" + minimal, nil, []string{"more than one YAML document"}},
		{"no YAML", "a: [\n", nil, []string{"h.yaml:"}},
		{"top level list", "- a\n", nil, []string{"needs a mapping"}},
		{"all at once", "x: 1\nlimits: {enabled: 2}\n", nil, []string{"h.yaml:1: x: unknown", "h.yaml:2: limits.enabled"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse("h.yaml", []byte(tc.text), tc.environ)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

func TestParse_KeepsPasswordsOutOfErrors(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"postgres://u:sesame@h:x/db", "mysql://u:sesame@h/db", "postgres://u:sesame@h"} {
		_, err := Parse("h.yaml", []byte(minimal+"database: "+url+"\n"), nil)
		if err == nil || strings.Contains(err.Error(), "sesame") {
			t.Errorf("error for %s: %v", url, err)
		}
	}
}

func TestLoad_Secrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("db", "sqlite:other.db\n")
	write("secret", " s3cret \n")
	write("tokens", "# for the pilot\none\n\n two\n")
	write("hansa.yaml", "database_file: db\ntenants:\n- name: a.example\n  registration: token\n"+
		"  registration_shared_secret_file: secret\n  registration_tokens_file: tokens\n")
	c, err := Load(filepath.Join(dir, "hansa.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.ReadDatabase(); err != nil || got != "sqlite:"+filepath.Join(dir, "other.db") {
		t.Errorf("ReadDatabase() = %s, %v", got, err)
	}
	if got, err := c.Tenants[0].ReadSharedSecret(); err != nil || got != "s3cret" {
		t.Errorf("ReadSharedSecret() = %q, %v", got, err)
	}
	got, err := c.Tenants[0].ReadTokens()
	if d := cmp.Diff([]string{"one", "two"}, got); d != "" || err != nil {
		t.Error(d, err)
	}
	write("secret", "\n")
	if _, err := c.Tenants[0].ReadSharedSecret(); err == nil {
		t.Error("an empty secret was accepted")
	}
	if _, err := Load(filepath.Join(dir, "absent.yaml"), nil); err == nil {
		t.Error("an absent file was accepted")
	}
}

func TestSample_IsTheExample(t *testing.T) {
	t.Parallel()
	want, err := Sample()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("..", "hansa.example.yaml")
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("hansa.example.yaml differs from what `hansa config sample` writes (-sample +file):\n%s", d)
	}
}

func TestSample_EqualsTheDefaults(t *testing.T) {
	t.Parallel()
	text, err := Sample()
	if err != nil {
		t.Fatal(err)
	}
	got := parse(t, string(text))
	want := parse(t, "tenants: [{name: acme.example}, {name: globex.example}]")
	if d := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Config{})); d != "" {
		t.Errorf("the sample is not the defaults (-defaults +sample):\n%s", d)
	}
}

func TestYAML_ReadsBack(t *testing.T) {
	t.Parallel()
	c := New("localhost:8448", "[::1]")
	c.Database = "postgres://u:p%23,@h/db?sslmode=disable"
	c.DataDir = "/srv/a #b"
	c.Media.MaxUpload = 1000
	c.Policy.Bundles = []string{"a, b", "true", "8"}
	c.Tenants[0].Registration = RegistrationOpen
	c.NATS = "nats://u:p%23@h:4222, tls://h2:4222"
	c.Federation.DefaultPartners = []string{"*"}
	c.Federation.Servers = []RemoteServer{{Name: "partner.example", Address: "10.0.0.5:8448", Pins: []string{"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}}}
	text, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse("hansa.yaml", text, nil)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if d := cmp.Diff(c, got, cmpopts.IgnoreUnexported(Config{})); d != "" {
		t.Errorf("(-written +read):\n%s", d)
	}
}

func TestFieldComments_AreThereForEveryKey(t *testing.T) {
	t.Parallel()
	text, err := New("acme.example").YAML()
	if err != nil {
		t.Fatal(err)
	}
	before := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if strings.Contains(line, ":") && !strings.HasPrefix(line, "#") && !strings.HasPrefix(before, "#") {
			t.Errorf("key without a comment: %s", line)
		}
		before = line
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Size{"0": 0, "512": 512, "512B": 512, "64KiB": 64 << 10, "50MiB": 50 << 20, "2GiB": 2 << 30, "1TiB": 1 << 40} {
		got, err := ParseSize(text)
		if err != nil || got != want {
			t.Errorf("ParseSize(%q) = %v, %v, want %d", text, got, err, want)
		}
		if back, err := ParseSize(got.String()); err != nil || back != got {
			t.Errorf("%d is written as %s", got, got)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1.5GiB", "50MB", "50 MiB", "9223372036854775807KiB", "1KiBi"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %v, want an error", text, got)
		}
	}
}

func TestDuration_String(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"10s": "10s", "60s": "1m", "90m": "1h30m", "2h": "2h", "1m30s": "1m30s", "0s": "0s"} {
		d, err := ParseDuration(text)
		if err != nil || d.String() != want {
			t.Errorf("%s is written as %s (%v), want %s", text, d, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	if text, err := Sample(); err == nil {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("hansa.yaml", text, nil)
		if err != nil {
			return
		}
		for _, tenant := range c.Tenants {
			if _, err := matrix.ParseServerName(string(tenant.Name)); err != nil {
				t.Errorf("accepted tenant %q", tenant.Name)
			}
		}
	})
}
