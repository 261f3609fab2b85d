package config

import (
	"path/filepath"
	"time"

	"hansa/matrix"
)

// Config is the whole configuration of one node.
type Config struct {
	// The directory for everything that this node writes: the embedded database, media, the socket of the admin API.
	DataDir string `yaml:"data_dir"`

	// Where events live. "sqlite:<path>" is the embedded database, right for one node;
	// "postgres://user@host/database?sslmode=verify-full" is a PostgreSQL service, right for everything larger.
	Database string `yaml:"database"`

	// A file that holds the value of database, for a URL with a password in it. It wins over database.
	DatabaseFile string `yaml:"database_file"`

	// Where several nodes on one PostgreSQL tell each other of news: "nats://host:4222", several separated by commas, or "tls://...".
	// Empty: this node is alone, or hears of the others by asking the database.
	NATS string `yaml:"nats"`

	// A file that holds the value of nats, for a URL with a password or token in it. It wins over nats.
	NATSFile string `yaml:"nats_file"`

	// The addresses that the server listens on, as host:port.
	Listen Listen `yaml:"listen"`

	// The certificate of the federation listener.
	TLS TLS `yaml:"tls"`

	// The Matrix domains that this deployment hosts. The first one answers a request that names none.
	Tenants []Tenant `yaml:"tenants"`

	// The rules that decide who may do what.
	Policy Policy `yaml:"policy"`

	// Servers elsewhere: how they are reached, and with whom a tenant may speak without an agreement.
	Federation Federation `yaml:"federation"`

	// Files that users upload.
	Media Media `yaml:"media"`

	// Bridges to other networks, and bots: what Matrix calls application services.
	Appservices Appservices `yaml:"appservices"`

	// Rate limits for logins, registrations, sends and the like, per user and address.
	Limits Limits `yaml:"limits"`

	// How long a stopping server lets requests that are under way come to their end.
	ShutdownGrace Duration `yaml:"shutdown_grace"`

	file string // where the configuration was read from, empty if it was made by New
}

// Listen holds the addresses of the listeners.
type Listen struct {
	// The client-server API. Put a reverse proxy with TLS in front of it, or bind it to 0.0.0.0 inside a container.
	Client string `yaml:"client"`

	// The addresses or networks of the reverse proxies in front of the client API, such as [127.0.0.1, 10.0.0.0/8]. What they
	// write into X-Forwarded-For is taken for the client's address in limits, policies and device lists; what others write is not.
	TrustedProxies []string `yaml:"trusted_proxies"`

	// The server-server API, with TLS as below: other servers look for it on port 8448. Empty: it is served on the address
	// of the client-server API, and a reverse proxy does the TLS.
	Federation string `yaml:"federation"`

	// The admin API, /metrics, /healthz and /readyz. Keep it away from the internet; empty turns it off.
	// The hansa commands do not need it: they use the socket in data_dir.
	Admin string `yaml:"admin"`
}

// TLS names the certificate of the federation listener. A renewed certificate is taken without a restart.
type TLS struct {
	// A file with the certificate for the names of all tenants and its chain, PEM.
	Certificate string `yaml:"certificate"`

	// A file with its private key, PEM.
	Key string `yaml:"key"`
}

// Federation says how servers elsewhere are reached.
type Federation struct {
	// A file with certificates (PEM) of authorities that are trusted beside those of the system, for a private network.
	TrustedCAFile string `yaml:"trusted_ca_file"`

	// Whether servers may be reached at loopback and private addresses. Leave it off where partners are on the internet: a
	// name that points into your network would lead there.
	AllowPrivateAddresses bool `yaml:"allow_private_addresses"`

	// Domains that every tenant may speak with without an agreement; ["*"] federates with everybody. The policy can still refuse.
	DefaultPartners []string `yaml:"default_partners"`

	// What is known of single servers beyond what DNS and certificates say; most need no entry. Each has a name, an address
	// (host:port, instead of what DNS says) and pins (SHA-256 of its public keys, base64):
	// [{name: partner.example, address: "10.0.0.5:8448", pins: ["..."]}]
	Servers []RemoteServer `yaml:"servers"`
}

// RemoteServer is what is known of one server elsewhere.
type RemoteServer struct {
	// Its server name.
	Name matrix.ServerName `yaml:"name"`

	// Where it is reached, as host:port, instead of what DNS says. The certificate must still be that of the server name.
	Address string `yaml:"address"`

	// Its public keys: SHA-256 of the certificate's SubjectPublicKeyInfo, base64. With one of them here, no other is accepted.
	Pins []string `yaml:"pins"`
}

// Tenant is one hosted Matrix domain.
type Tenant struct {
	// The server name: the part after the colon in @user:acme.example. It cannot be changed later.
	Name matrix.ServerName `yaml:"name"`

	// The Ed25519 key that signs this tenant's events. It is made at the first start if it is missing. Keep a copy.
	SigningKeyFile string `yaml:"signing_key_file"`

	// The address that clients reach this tenant under; .well-known announces it.
	PublicURL string `yaml:"public_url"`

	// Who may make an account: closed (only the operator), token (whoever holds a token of the file below) or open.
	Registration Registration `yaml:"registration"`

	// A file with a secret that lets a script make accounts, as Synapse's register_new_matrix_user does. Empty: off.
	RegistrationSharedSecretFile string `yaml:"registration_shared_secret_file"`

	// A file with registration tokens, one a line, for registration: token. Empty lines and lines with # are skipped.
	RegistrationTokensFile string `yaml:"registration_tokens_file"`
}

// Policy says where the rules are.
type Policy struct {
	// Directories (watched: a saved file is active at once) or bundle files (.tar.gz) of Rego and YAML.
	// A later one can only narrow what an earlier one allows.
	Bundles []string `yaml:"bundles"`
}

// Media says where uploads go and how large they may be.
type Media struct {
	// The directory that holds the files.
	Path string `yaml:"path"`

	// The largest upload, such as 50MiB. A policy may set a smaller one.
	MaxUpload Size `yaml:"max_upload"`
}

// Appservices says where the registrations of application services are.
type Appservices struct {
	// The directory of their registration files (*.yaml), watched: a saved file is active at once. It need not be there.
	Directory string `yaml:"directory"`
}

// Limits turns rate limits on and off.
type Limits struct {
	// Turn it off for load tests and imports only.
	Enabled bool `yaml:"enabled"`
}

// Registration says who may make an account on a tenant.
type Registration string

// The kinds of registration.
const (
	RegistrationClosed Registration = "closed"
	RegistrationToken  Registration = "token"
	RegistrationOpen   Registration = "open"
)

// New returns the configuration that a deployment with these tenants starts with; its paths are relative.
func New(tenants ...matrix.ServerName) *Config {
	c := defaults(filepath.Join(".", "data"))
	for _, name := range tenants {
		t := Tenant{Name: name}
		t.setDefaults()
		c.Tenants = append(c.Tenants, t)
	}
	return c
}

// defaults is the one place for the values of keys that nobody set.
func defaults(dataDir string) *Config {
	return &Config{
		DataDir:       dataDir,
		Database:      "sqlite:" + filepath.Join(dataDir, "hansa.db"),
		Listen:        Listen{Client: "127.0.0.1:8008", TrustedProxies: []string{}, Admin: "127.0.0.1:8009"},
		Policy:        Policy{Bundles: []string{"policy"}},
		Federation:    Federation{DefaultPartners: []string{}},
		Media:         Media{Path: filepath.Join(dataDir, "media"), MaxUpload: 50 << 20},
		Appservices:   Appservices{Directory: "bridges"},
		Limits:        Limits{Enabled: true},
		ShutdownGrace: Duration(10 * time.Second),
	}
}

// setDefaults fills what follows from the tenant's name.
func (t *Tenant) setDefaults() {
	if t.SigningKeyFile == "" {
		t.SigningKeyFile = filepath.Join("keys", string(t.Name)+".key")
	}
	if t.PublicURL == "" {
		t.PublicURL = "https://" + string(t.Name)
	}
	if t.Registration == "" {
		t.Registration = RegistrationClosed
	}
}

// File is the path that the configuration was loaded from.
func (c *Config) File() string { return c.file }

// AdminSocket is the path of the unix socket that the hansa commands reach a running server by.
func (c *Config) AdminSocket() string { return filepath.Join(c.DataDir, "admin.sock") }
