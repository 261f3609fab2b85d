package config

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"hansa/matrix"
)

// check reports values that are well formed but cannot work.
func (in *input) check(c *Config) {
	try := func(key string, err error) {
		if err != nil {
			in.fail(key, "%v", err)
		}
	}
	if c.DataDir == "" {
		in.fail("data_dir", "must not be empty")
	}
	try("database", checkDatabase(c.Database))
	try("listen.client", checkAddress(c.Listen.Client))
	if c.Listen.Admin != "" {
		try("listen.admin", checkAddress(c.Listen.Admin))
		if _, port, err := net.SplitHostPort(c.Listen.Admin); err == nil && port != "0" && c.Listen.Admin == c.Listen.Client {
			in.fail("listen.admin", "must differ from listen.client")
		}
	}
	if c.Listen.Federation != "" {
		try("listen.federation", checkAddress(c.Listen.Federation))
		if c.TLS.Certificate == "" || c.TLS.Key == "" {
			in.fail("listen.federation", "needs tls.certificate and tls.key")
		}
	}
	if (c.TLS.Certificate == "") != (c.TLS.Key == "") {
		in.fail("tls", "needs both certificate and key")
	}
	if c.NATS != "" {
		try("nats", checkNATS(c.NATS))
	}
	if (c.NATS != "" || c.NATSFile != "") && strings.HasPrefix(c.Database, "sqlite:") && c.DatabaseFile == "" {
		in.fail("nats", "is for several nodes, which need a database of postgres://...")
	}
	in.checkFederation(&c.Federation)
	if _, err := c.Listen.ReadProxies(); err != nil {
		in.fail("listen.trusted_proxies", "%v", err)
	}
	if len(c.Tenants) == 0 {
		in.fail("tenants", "name at least one tenant")
	}
	seen, keys := map[matrix.ServerName]bool{}, map[string]bool{}
	for i, t := range c.Tenants {
		at := fmt.Sprintf("tenants[%d].", i)
		switch {
		case t.Name == "":
			in.fail(at+"name", "must not be empty")
		case seen[t.Name]:
			in.fail(at+"name", "%s is there twice", t.Name)
		}
		if keys[t.SigningKeyFile] {
			in.fail(at+"signing_key_file", "two tenants must not share %s", t.SigningKeyFile)
		}
		seen[t.Name], keys[t.SigningKeyFile] = true, true
		try(at+"public_url", checkPublicURL(t.PublicURL))
		if t.Registration == RegistrationToken && t.RegistrationTokensFile == "" {
			in.fail(at+"registration_tokens_file", "must name a file when registration is token")
		}
	}
	if len(c.Policy.Bundles) == 0 {
		in.fail("policy.bundles", "name at least one bundle: without rules nobody may do anything")
	}
	for i, b := range c.Policy.Bundles {
		if b == "" {
			in.fail(fmt.Sprintf("policy.bundles[%d]", i), "must not be empty")
		}
	}
	if c.Media.Path == "" {
		in.fail("media.path", "must not be empty")
	}
	if c.Media.MaxUpload == 0 {
		in.fail("media.max_upload", "must be more than 0")
	}
}

func (in *input) checkFederation(f *Federation) {
	for i, d := range f.DefaultPartners {
		if _, err := matrix.ParseServerName(d); err != nil && d != "*" {
			in.fail(fmt.Sprintf("federation.default_partners[%d]", i), "%q is neither a server name nor *", d)
		}
	}
	seen := map[matrix.ServerName]bool{}
	for i, r := range f.Servers {
		at := fmt.Sprintf("federation.servers[%d].", i)
		switch {
		case r.Name == "":
			in.fail(at+"name", "must not be empty")
		case seen[r.Name]:
			in.fail(at+"name", "%s is there twice", r.Name)
		}
		seen[r.Name] = true
		if r.Address != "" {
			if err := checkAddress(r.Address); err != nil {
				in.fail(at+"address", "%v", err)
			}
		}
		for _, pin := range r.Pins {
			if b, err := base64.StdEncoding.DecodeString(pin); err != nil || len(b) != sha256.Size {
				in.fail(at+"pins", "%q is not the base64 of 32 bytes", pin)
			}
		}
	}
}

func checkNATS(list string) error {
	for _, s := range strings.Split(list, ",") {
		u, err := url.Parse(strings.TrimSpace(s))
		if err != nil {
			return errors.New("is not a URL") // the error of url.Parse would repeat the password
		}
		if u.Scheme != "nats" && u.Scheme != "tls" || u.Host == "" {
			return errors.New("must be nats://host:port or tls://host:port, several separated by commas")
		}
	}
	return nil
}

func checkDatabase(s string) error {
	if p, ok := strings.CutPrefix(s, "sqlite:"); ok {
		if p == "" || strings.HasPrefix(p, "//") || strings.ContainsAny(p, "?#") {
			return fmt.Errorf("%q: write sqlite:<path of a file>", s)
		}
		return nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return errors.New("is not a URL") // the error of url.Parse would repeat the password
	}
	if u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return errors.New("must begin with sqlite: or postgres://")
	}
	if strings.Trim(u.Path, "/") == "" && u.Query().Get("dbname") == "" {
		return errors.New("the URL names no database")
	}
	return nil
}

// ReadProxies are the networks of the trusted proxies.
func (l Listen) ReadProxies() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range l.TrustedProxies {
		if ip, err := netip.ParseAddr(s); err == nil {
			out = append(out, netip.PrefixFrom(ip.Unmap().WithZone(""), ip.Unmap().BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("%q is neither an address nor a network such as 10.0.0.0/8", s)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

func checkAddress(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not host:port", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q: a port is a number up to 65535", s)
	} else if strconv.FormatUint(n, 10) != port {
		return fmt.Errorf("%q: write the port without leading zeros", s)
	}
	return nil
}

func checkPublicURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%q is not an http or https URL", s)
	}
	if strings.HasSuffix(u.Path, "/") {
		return fmt.Errorf("%q: leave the slash at the end away", s)
	}
	return nil
}
