package appservices

import (
	"regexp"
	"testing"
	"time"

	"hansa/matrix"
)

// An example fits its expression, and what cannot be said shortly is no example.
func TestExample(t *testing.T) {
	t.Parallel()
	for regex, want := range map[string]string{
		`@irc_.*:acme\.example`:         "@irc_:acme.example",
		`@irc_[a-z]+`:                   "@irc_a",
		`^@(mail|post)_\d{2}.*$`:        "@mail_00",
		`@x?(y|z)+`:                     "@y",
		`#(?:irc|xmpp)_.+:acme.example`: "#irc_x:acmexexample",
		`[^\x00-\x{10FFFF}]`:            "",
	} {
		got := example(regex)
		if got != want {
			t.Errorf("example(%s) = %q, want %q", regex, got, want)
		}
		if got != "" && !regexp.MustCompile(`\A(?:`+regex+`)\z`).MatchString(got) {
			t.Errorf("%q does not fit %s", got, regex)
		}
	}
}

// A transaction has the same ID for the same content at the same place, and for no other.
func TestTransaction_ID(t *testing.T) {
	t.Parallel()
	one := &transaction{end: 9, events: [][]byte{[]byte(`{"a":1}`), []byte(`{"b":2}`)}}
	same := &transaction{end: 9, events: [][]byte{[]byte(`{"a":1}`), []byte(`{"b":2}`)}}
	if one.id(3) != same.id(3) {
		t.Error("the same content has two IDs")
	}
	for what, other := range map[string]string{"position": one.id(4), "end": (&transaction{end: 8, events: one.events}).id(3),
		"less":      (&transaction{end: 9, events: one.events[:1]}).id(3),
		"joined":    (&transaction{end: 9, events: [][]byte{[]byte(`{"a":1}{"b":2}`)}}).id(3),
		"elsewhere": (&transaction{end: 9, events: one.events[:1], ephemeral: one.events[1:]}).id(3)} {
		if other == one.id(3) {
			t.Errorf("another %s has the same ID", what)
		}
	}
}

// B431: a bridge that takes 29 seconds for a transaction is slow and not away.
func TestB431_PatienceWithSlowBridges(t *testing.T) {
	t.Parallel()
	if d := defaultTune().timeout; d < 35*time.Second || d > time.Minute {
		t.Errorf("a bridge has %v", d)
	}
}

// FuzzParse holds that no registration makes trouble, and that what is accepted holds together.
func FuzzParse(f *testing.F) {
	f.Add("id: irc\nurl: http://127.0.0.1:9\nas_token: 0123456789abcdef0123456789abcdef\nhs_token: 1123456789abcdef0123456789abcdef\nsender_localpart: bot\n" +
		"namespaces: {users: [{regex: '@irc_.*', exclusive: true}]}\n")
	f.Add("id: [1]\n&a [*a]")
	f.Fuzz(func(t *testing.T, text string) {
		r, _, err := parse("f.yaml", []byte(text), []matrix.ServerName{"acme.example"})
		if err != nil {
			return
		}
		if r.ID == "" || r.Tenant != "acme.example" || r.Bot.Server() != "acme.example" || len(r.hsToken) < minToken {
			t.Errorf("accepted %+v", r)
		}
		if r.OwnsUser("@x:globex.example") || r.reserves("@qxvzjkwpyhg:acme.example", "acme.example", r.Users) {
			t.Errorf("accepted a namespace that reaches too far: %+v", r.Users)
		}
	})
}
