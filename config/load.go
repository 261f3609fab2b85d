package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// maxFile bounds the configuration file and every file of secrets.
const maxFile = 1 << 20

// Load reads the file at path, lays the variables of environ (as os.Environ gives them) over it, fills in defaults and
// checks the result. Relative paths in it become relative to the file's directory.
func Load(path string, environ []string) (*Config, error) {
	text, err := readLimited(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, text, environ)
}

// Parse is Load for a text that is already in memory; path names it in errors and gives the directory for relative paths.
func Parse(path string, text []byte, environ []string) (*Config, error) {
	in := newInput(path)
	if err := in.readYAML(text); err != nil {
		return nil, err
	}
	in.readEnviron(environ)
	c := defaults(in.scalar("data_dir", "data"))
	c.file = path
	in.fill(c)
	for i := range c.Tenants {
		c.Tenants[i].setDefaults()
	}
	if len(in.errs) == 0 {
		in.check(c)
	}
	if len(in.errs) > 0 {
		return nil, errors.Join(in.errs...)
	}
	c.resolve(filepath.Dir(path))
	return c, nil
}

// resolve makes every path independent of the working directory of the process that loaded the file in dir.
func (c *Config) resolve(dir string) {
	join := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	join(&c.DataDir)
	join(&c.DatabaseFile)
	join(&c.NATSFile)
	join(&c.TLS.Certificate)
	join(&c.TLS.Key)
	join(&c.Federation.TrustedCAFile)
	join(&c.Media.Path)
	join(&c.Appservices.Directory)
	for i := range c.Policy.Bundles {
		join(&c.Policy.Bundles[i])
	}
	for i := range c.Tenants {
		t := &c.Tenants[i]
		join(&t.SigningKeyFile)
		join(&t.RegistrationSharedSecretFile)
		join(&t.RegistrationTokensFile)
	}
	c.Database = resolveDatabase(c.Database, dir)
}

func resolveDatabase(url, dir string) string {
	if p, ok := strings.CutPrefix(url, "sqlite:"); ok && !filepath.IsAbs(p) {
		return "sqlite:" + filepath.Join(dir, p)
	}
	return url
}

// ReadDatabase returns the database URL: the content of database_file where that is set, else database.
func (c *Config) ReadDatabase() (string, error) {
	if c.DatabaseFile == "" {
		return c.Database, nil
	}
	url, err := readSecret("database_file", c.DatabaseFile)
	if err != nil {
		return "", err
	}
	if err := checkDatabase(url); err != nil {
		return "", fmt.Errorf("database_file: %w", err)
	}
	return resolveDatabase(url, filepath.Dir(c.file)), nil
}

// ReadNATS returns the URLs of NATS: the content of nats_file where that is set, else nats. Empty means none.
func (c *Config) ReadNATS() (string, error) {
	if c.NATSFile == "" {
		return c.NATS, nil
	}
	urls, err := readSecret("nats_file", c.NATSFile)
	if err != nil {
		return "", err
	}
	if err := checkNATS(urls); err != nil {
		return "", fmt.Errorf("nats_file: %w", err)
	}
	return urls, nil
}

// ReadSharedSecret returns the registration shared secret, empty where none is configured.
func (t *Tenant) ReadSharedSecret() (string, error) {
	if t.RegistrationSharedSecretFile == "" {
		return "", nil
	}
	return readSecret("registration_shared_secret_file", t.RegistrationSharedSecretFile)
}

// ReadTokens returns the registration tokens, none where no file is configured.
func (t *Tenant) ReadTokens() ([]string, error) {
	if t.RegistrationTokensFile == "" {
		return nil, nil
	}
	text, err := readLimited(t.RegistrationTokensFile)
	if err != nil {
		return nil, fmt.Errorf("registration_tokens_file: %w", err)
	}
	var tokens []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			tokens = append(tokens, line)
		}
	}
	return tokens, nil
}

func readSecret(key, path string) (string, error) {
	text, err := readLimited(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", key, err)
	}
	s := strings.TrimSpace(string(text))
	if s == "" {
		return "", fmt.Errorf("%s: %s is empty", key, path)
	}
	return s, nil
}

func readLimited(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return os.ReadFile(path)
}
