// Package serveracl reads m.room.server_acl events and tells which servers may take part in a room.
//
// Parse compiles the content of the event once; the ACL then answers Allowed without allocating and in time linear in the
// server name for each list, whatever patterns a stranger wrote into the event: literal entries and entries of the form
// `*literal` or `literal*` are looked up, all others go through the linear matcher of package glob.
//
// Which requests, PDUs and EDUs are asked about, and for which server, is left to the federation packages.
//
// spec: client-server-api#server-access-control-lists-acls-for-rooms
// spec: server-server-api#server-access-control-lists-acls
package serveracl

import (
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/glob"
)

// maxHost is the longest host name in bytes; a pattern that needs more cannot match.
const maxHost = 255

// ACL is the compiled content of an m.room.server_acl event: immutable and safe for concurrent use. A nil ACL, of a room
// without such an event, allows every server.
type ACL struct {
	denyIPLiterals bool
	allow, deny    list
}

// Parse compiles the content of an m.room.server_acl event. Fields that are absent or of a wrong type have their defaults
// (IP literals allowed, empty lists), entries that are no strings are left out. So whatever is malformed allows nobody.
//
// spec: client-server-api#mroomserver_acl
func Parse(content jsontext.Value) *ACL {
	var o struct {
		AllowIPLiterals jsontext.Value `json:"allow_ip_literals"`
		Allow           jsontext.Value `json:"allow"`
		Deny            jsontext.Value `json:"deny"`
	}
	if content.Kind() != jsontext.KindBeginObject || json.Unmarshal(content, &o) != nil {
		return new(ACL)
	}
	return &ACL{
		denyIPLiterals: o.AllowIPLiterals.Kind() == jsontext.KindFalse,
		allow:          newList(o.Allow),
		deny:           newList(o.Deny),
	}
}

// Allowed tells whether a server may take part in the room. Its port does not matter.
//
// spec: client-server-api#mroomserver_acl
func (a *ACL) Allowed(server matrix.ServerName) bool {
	if a == nil {
		return true
	}
	host := glob.Fold(server.Host())
	if a.denyIPLiterals && isIPLiteral(host) {
		return false
	}
	return !a.deny.match(host) && a.allow.match(host)
}

// isIPLiteral goes by the grammar of server names alone, so that 999.1.1.1 is an IP literal too.
//
// spec: appendices#server-name
func isIPLiteral(host string) bool {
	if strings.HasPrefix(host, "[") {
		return true
	}
	for i := 0; i < 4; i++ {
		group := host
		if i < 3 {
			var ok bool
			if group, host, ok = strings.Cut(host, "."); !ok {
				return false
			}
		}
		if len(group) < 1 || len(group) > 3 || strings.Trim(group, "0123456789") != "" {
			return false
		}
	}
	return true
}

// list is a compiled list of patterns, sorted by what it takes to match them.
type list struct {
	any bool
	// exact, prefixes and suffixes hold patterns whose only wildcard is one star: at the end, at the start, or none.
	exact, prefixes, suffixes map[string]struct{}
	globs                     []*glob.Glob
}

func newList(v jsontext.Value) list {
	var l list
	var entries []jsontext.Value
	if v.Kind() != jsontext.KindBeginArray || json.Unmarshal(v, &entries) != nil {
		return l
	}
	seen := make(map[string]struct{})
	for _, entry := range entries {
		if entry.Kind() != jsontext.KindString {
			continue
		}
		text, err := jsontext.AppendUnquote(nil, entry)
		if err != nil {
			continue
		}
		pattern := collapse(glob.Fold(string(text)))
		if _, twice := seen[pattern]; !twice {
			seen[pattern] = struct{}{}
			l.add(pattern)
		}
	}
	return l
}

// collapse makes one star of several in a row.
func collapse(pattern string) string {
	for strings.Contains(pattern, "**") {
		pattern = strings.ReplaceAll(pattern, "**", "*")
	}
	return pattern
}

func (l *list) add(pattern string) {
	if len(pattern)-strings.Count(pattern, "*") > maxHost {
		return
	}
	switch plain := strings.Trim(pattern, "*"); {
	case pattern == "*":
		l.any = true
	case strings.ContainsAny(plain, "*?") || len(pattern)-len(plain) == 2:
		l.globs = append(l.globs, glob.Compile(pattern))
	case plain == pattern:
		put(&l.exact, plain)
	case pattern[0] == '*':
		put(&l.suffixes, plain)
	default:
		put(&l.prefixes, plain)
	}
}

func put(set *map[string]struct{}, s string) {
	if *set == nil {
		*set = make(map[string]struct{})
	}
	(*set)[s] = struct{}{}
}

func (l *list) match(host string) bool {
	if l.any || has(l.exact, host) {
		return true
	}
	if len(l.prefixes) > 0 || len(l.suffixes) > 0 {
		for i := range len(host) + 1 {
			if has(l.prefixes, host[:i]) || has(l.suffixes, host[i:]) {
				return true
			}
		}
	}
	for _, g := range l.globs {
		if g.Match(host) {
			return true
		}
	}
	return false
}

func has(set map[string]struct{}, s string) bool {
	_, ok := set[s]
	return ok
}
