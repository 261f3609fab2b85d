package appservices

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"hansa/homeserver/account"
	"hansa/matrix"
)

const (
	// minToken and maxToken bound the tokens of a registration, in characters.
	minToken = 32
	maxToken = 255
	maxID    = 100
	// maxRegex and maxNamespaces bound what has to be matched for every name.
	maxRegex      = 1024
	maxNamespaces = 100
)

// Registration is one bridge, as its file describes it.
//
// spec: application-service-api#registration
type Registration struct {
	// File is where it was read from.
	File string
	// ID is its name, for good.
	ID     string
	Tenant matrix.ServerName
	// URL is where it listens, empty for one that wants to be told of nothing.
	URL string
	// Bot is the user that it acts as when it names nobody.
	Bot matrix.UserID
	// Users, Aliases and Rooms are the names that it is concerned with.
	Users, Aliases, Rooms []Namespace
	// RateLimited says that its ghosts are limited as other users are.
	RateLimited bool
	// Ephemeral says that it wants receipts, typing, presence and messages to devices.
	Ephemeral bool
	// Protocols are the networks that it connects to.
	Protocols []string

	base    *url.URL // of URL; nil without one
	asHash  [sha256.Size]byte
	hsToken string
	print   [sha256.Size]byte // of the file
}

// Namespace is a set of names, as a regular expression that the whole name must match.
type Namespace struct {
	// Regex is the expression as it was written.
	Regex string
	// Exclusive names can be used by this bridge alone.
	Exclusive bool

	re      *regexp.Regexp
	example string // one name that fits
}

// file is a registration as it is written. Keys that other servers know are ignored.
type file struct {
	ID              string   `yaml:"id"`
	URL             *string  `yaml:"url"`
	ASToken         string   `yaml:"as_token"`
	HSToken         string   `yaml:"hs_token"`
	SenderLocalpart string   `yaml:"sender_localpart"`
	Namespaces      *names   `yaml:"namespaces"`
	RateLimited     *bool    `yaml:"rate_limited"`
	Protocols       []string `yaml:"protocols"`
	Ephemeral       *bool    `yaml:"receive_ephemeral"`
	// the names of receive_ephemeral before the specification had it
	OldEphemeral   *bool  `yaml:"de.sorunome.msc2409.push_ephemeral"`
	OlderEphemeral *bool  `yaml:"push_ephemeral"`
	Tenant         string `yaml:"tenant"`
}

type names struct {
	Users   []namespace `yaml:"users"`
	Aliases []namespace `yaml:"aliases"`
	Rooms   []namespace `yaml:"rooms"`
}

type namespace struct {
	Exclusive *bool  `yaml:"exclusive"`
	Regex     string `yaml:"regex"`
}

// parse reads one registration file. All that is wrong with it is said at once; warnings are no reason to refuse it.
func parse(name string, text []byte, tenants []matrix.ServerName) (r *Registration, warnings []string, err error) {
	var f file
	dec := yaml.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&f); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the file is empty")
		}
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("%s: holds more than one document", name)
	}
	c := &checker{name: name}
	r = &Registration{File: name, ID: f.ID, hsToken: f.HSToken, asHash: sha256.Sum256([]byte(f.ASToken)), print: sha256.Sum256(text), RateLimited: true,
		Protocols: f.Protocols}
	if f.RateLimited != nil {
		r.RateLimited = *f.RateLimited
	}
	for _, b := range []*bool{f.Ephemeral, f.OldEphemeral, f.OlderEphemeral} {
		r.Ephemeral = r.Ephemeral || b != nil && *b
	}
	if f.ID == "" || len(f.ID) > maxID || strings.ContainsFunc(f.ID, func(c rune) bool { return c < ' ' || c > '~' || c == '/' }) {
		c.fail("id must have 1 to %d visible ASCII characters and no slash", maxID)
	}
	c.token("as_token", f.ASToken)
	c.token("hs_token", f.HSToken)
	if f.ASToken == f.HSToken {
		c.fail("as_token and hs_token must differ")
	}
	if r.Tenant = c.tenant(f.Tenant, tenants); r.Tenant != "" {
		if r.Bot, err = matrix.ParseLocalpart(f.SenderLocalpart, r.Tenant); err != nil {
			c.fail("sender_localpart: %v", err)
		}
	}
	if f.URL == nil || *f.URL == "" || *f.URL == "null" {
		c.warn("url is not set: it is told of nothing")
	} else if r.URL = *f.URL; true {
		r.base = c.url(*f.URL)
	}
	if f.Namespaces == nil {
		c.fail("namespaces is missing")
	} else {
		r.Users = c.namespaces("users", '@', r.Tenant, f.Namespaces.Users)
		r.Aliases = c.namespaces("aliases", '#', r.Tenant, f.Namespaces.Aliases)
		r.Rooms = c.namespaces("rooms", '!', r.Tenant, f.Namespaces.Rooms)
	}
	return r, c.warnings, errors.Join(c.errs...)
}

// checker gathers what is wrong with a file.
type checker struct {
	name     string
	errs     []error
	warnings []string
}

func (c *checker) fail(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("%s: %s", c.name, fmt.Sprintf(format, args...)))
}

func (c *checker) warn(format string, args ...any) {
	c.warnings = append(c.warnings, fmt.Sprintf("%s: %s", c.name, fmt.Sprintf(format, args...)))
}

func (c *checker) token(key, value string) {
	switch {
	case len(value) < minToken || len(value) > maxToken:
		c.fail("%s must have %d to %d characters", key, minToken, maxToken)
	case strings.ContainsFunc(value, func(c rune) bool { return c <= ' ' || c > '~' }):
		c.fail("%s must have visible ASCII characters only", key)
	case len(uniq(value)) < 8:
		c.fail("%s can be guessed; make one with `openssl rand -hex 32`", key)
	}
}

func uniq(s string) map[byte]bool {
	out := map[byte]bool{}
	for i := range len(s) {
		out[s[i]] = true
	}
	return out
}

func (c *checker) tenant(name string, tenants []matrix.ServerName) matrix.ServerName {
	switch {
	case name == "" && len(tenants) == 1:
		return tenants[0]
	case name == "":
		c.fail("tenant is missing: say which of the hosted domains the bridge belongs to")
	case !slices.Contains(tenants, matrix.ServerName(name)):
		c.fail("tenant: %.100q is not hosted here", name)
	default:
		return matrix.ServerName(name)
	}
	return ""
}

// url checks where a bridge listens.
func (c *checker) url(raw string) *url.URL {
	u, err := url.Parse(raw)
	switch {
	case err != nil || len(raw) > 2000:
		c.fail("url: %.100q is not a URL", raw)
	case u.Scheme != "http" && u.Scheme != "https":
		c.fail("url: only http and https are possible, not %.20q", u.Scheme)
	case u.Hostname() == "" || u.Opaque != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		c.fail("url: must be a host with an optional port and path")
	default:
		if ip := net.ParseIP(u.Hostname()); u.Scheme == "http" && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
			c.warn("url: messages and tokens go to %s without encryption", u.Host)
		}
		u.Path = strings.TrimSuffix(u.Path, "/")
		return u
	}
	return nil
}

// strangers are names that nobody would give to the users, aliases or rooms of a bridge: an expression that fits them fits everything.
func strangers() []string { return []string{"qxvzjkwpyhg", "k7f3c9e1x", "q"} }

func (c *checker) namespaces(kind string, sigil byte, tenant matrix.ServerName, list []namespace) []Namespace {
	if len(list) > maxNamespaces {
		c.fail("namespaces.%s: at most %d entries are possible", kind, maxNamespaces)
		return nil
	}
	var out []Namespace
	for i, n := range list {
		where := fmt.Sprintf("namespaces.%s[%d]", kind, i)
		if n.Regex == "" || len(n.Regex) > maxRegex {
			c.fail("%s: regex must have 1 to %d characters", where, maxRegex)
			continue
		}
		re, err := regexp.Compile(`\A(?:` + n.Regex + `)\z`)
		if err != nil {
			c.fail("%s: %.200q is no regular expression of RE2: %v", where, n.Regex, err)
			continue
		}
		ns := Namespace{Regex: n.Regex, Exclusive: n.Exclusive != nil && *n.Exclusive, re: re, example: example(n.Regex)}
		if greedy := slices.ContainsFunc(strangers(), func(s string) bool { return re.MatchString(string(sigil) + s + ":" + string(tenant)) }); greedy && ns.Exclusive {
			c.fail("%s: %.200q would reserve names that have nothing to do with the bridge; begin it with a prefix of its own", where, n.Regex)
		} else if greedy {
			c.warn("%s: %.200q fits every name", where, n.Regex)
		}
		out = append(out, ns)
	}
	return out
}

func fits(list []Namespace, name string, exclusive bool) bool {
	return slices.ContainsFunc(list, func(n Namespace) bool { return (n.Exclusive || !exclusive) && n.re.MatchString(name) })
}

// OwnsUser tells whether a user is the bot or lies in the namespace of users. Users of other domains never do.
func (r *Registration) OwnsUser(u matrix.UserID) bool {
	return u.Server() == r.Tenant && (u == r.Bot || fits(r.Users, string(u), false))
}

// OwnsAlias tells whether an alias lies in the namespace of aliases.
func (r *Registration) OwnsAlias(a matrix.RoomAlias) bool {
	return a.Server() == r.Tenant && fits(r.Aliases, string(a), false)
}

func (r *Registration) ownsRoom(id matrix.RoomID) bool { return fits(r.Rooms, string(id), false) }

// reserves tells whether nobody else may use a user ID or alias.
func (r *Registration) reserves(name string, server matrix.ServerName, list []Namespace) bool {
	return server == r.Tenant && (name == string(r.Bot) || fits(list, name, true))
}

// Bridge is the registration as the account service knows it.
func (r *Registration) Bridge() *account.Bridge {
	return &account.Bridge{ID: r.ID, Tenant: r.Tenant, Bot: r.Bot, Owns: r.OwnsUser, RateLimited: r.RateLimited, Version: r.print}
}
