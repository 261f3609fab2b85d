package serveracl

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"pgregory.net/rapid"

	"hansa/matrix"
)

func TestAllowed(t *testing.T) {
	t.Parallel()
	const usual = `{"allow":["*"],"deny":["evil.com","*.evil.com","bad?.example.org"],"allow_ip_literals":false}`
	for _, tt := range []struct {
		content string
		server  matrix.ServerName
		want    bool
	}{
		{usual, "good.com", true}, {usual, "evil.com", false}, {usual, "evil.com:8448", false}, {usual, "EVIL.com", false},
		{usual, "sub.evil.com:1", false}, {usual, "notevil.com", true}, {usual, "evil.com.org", true}, {usual, "bad1.example.org", false},
		{usual, "bad.example.org", true}, {usual, "1.2.3.4", false}, {usual, "1.2.3.4:8448", false}, {usual, "999.1.1.1", false},
		{usual, "1.2.3.4.example.org", true}, {usual, "1.2.3", true}, {usual, "1.2.3.4444", true}, {usual, "1.2.3.", true}, {usual, "[::1]", false}, {usual, "[::1]:8448", false},
		{`{"allow":["*"]}`, "1.2.3.4", true}, {`{"allow":["*"],"allow_ip_literals":"false"}`, "1.2.3.4", true},
		{`{"allow":["*"],"allow_ip_literals":null}`, "[::1]", true}, {`{"allow":["*"],"allow_ip_literals":0}`, "[::1]", true},
		{`{"allow":["[::1]"]}`, "[::1]:80", true}, {`{"allow":["1.2.3.*"]}`, "1.2.3.4:80", true},
		{`{}`, "good.com", false}, {`{"deny":["evil.com"]}`, "good.com", false}, {`{"allow":[]}`, "good.com", false},
		{`{"allow":"*"}`, "good.com", false}, {`{"allow":{"*":1}}`, "good.com", false}, {`{"allow":[1,null,["*"],{}]}`, "good.com", false},
		{`{"allow":[1,"*"]}`, "good.com", true}, {`{"allow":["*"],"deny":"*"}`, "good.com", true}, {`{"allow":["*"],"deny":[null,"*"]}`, "good.com", false},
		{`{"allow":["GOOD.com"]}`, "good.com", true}, {`{"allow":["good.com:8448"]}`, "good.com:8448", false},
		{`{"allow":["good*"]}`, "good.com", true}, {`{"allow":["*.com"]}`, "good.com", true}, {`{"allow":["*oo*"]}`, "good.com", true},
		{`{"allow":["**"]}`, "good.com", true}, {`{"allow":["***.com"]}`, "good.com", true}, {`{"allow":["g*m"]}`, "good.com", true}, {`{"allow":[""]}`, "good.com", false},
		{`{"ALLOW":["*"]}`, "good.com", false}, {`[]`, "good.com", false}, {`null`, "good.com", false}, {``, "good.com", false}, {`{"allow":["*"]`, "good.com", false},
		{`{"allow":["*"],"allow":[]}`, "good.com", false},
	} {
		if got := Parse(jsontext.Value(tt.content)).Allowed(tt.server); got != tt.want {
			t.Errorf("%s allows %s: %v, want %v", tt.content, tt.server, got, tt.want)
		}
	}
	if !(*ACL)(nil).Allowed("good.com") {
		t.Error("a room without an ACL refuses a server")
	}
}

// content makes the content of an event out of two lists.
func content(t testing.TB, allow, deny []string) jsontext.Value {
	t.Helper()
	b, err := json.Marshal(map[string][]string{"allow": allow, "deny": deny})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func oracle(patterns []string, host string) bool {
	for _, p := range patterns {
		re := regexp.QuoteMeta(strings.ToLower(p))
		re = strings.ReplaceAll(strings.ReplaceAll(re, `\*`, `.*`), `\?`, `.`)
		if regexp.MustCompile(`(?s)\A` + re + `\z`).MatchString(strings.ToLower(host)) {
			return true
		}
	}
	return false
}

func TestAllowed_AgreesWithRegexp(t *testing.T) {
	t.Parallel()
	patterns := rapid.SliceOfN(rapid.StringOfN(rapid.SampledFrom([]rune("aAb.**?")), 0, 6, -1), 0, 5)
	rapid.Check(t, func(t *rapid.T) {
		allow, deny := patterns.Draw(t, "allow"), patterns.Draw(t, "deny")
		host := rapid.StringOfN(rapid.SampledFrom([]rune("aAb.")), 1, 8, -1).Draw(t, "host")
		b, err := json.Marshal(map[string][]string{"allow": allow, "deny": deny})
		if err != nil {
			t.Fatal(err)
		}
		want := !oracle(deny, host) && oracle(allow, host)
		if got := Parse(b).Allowed(matrix.ServerName(host)); got != want {
			t.Fatalf("allow %q, deny %q: %s allowed %v, want %v", allow, deny, host, got, want)
		}
	})
}

// weapons are ACLs of the largest size an event may have, made to be slow.
func weapons(t testing.TB) map[string]jsontext.Value {
	many := func(n int, pattern string) []string {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf(pattern, i)
		}
		return list
	}
	return map[string]jsontext.Value{
		"10,000 literals":  content(t, []string{"*"}, many(10_000, "%d.x")),
		"10,000 suffixes":  content(t, []string{"*"}, many(10_000, "*%d")),
		"10,000 globs":     content(t, []string{"*"}, many(10_000, "*z%d*")),
		"globs of stars":   content(t, []string{"*"}, many(600, strings.Repeat("*a", 48)+"b%d")),
		"globs of holes":   content(t, []string{"*"}, many(600, "*"+strings.Repeat("a?", 46)+"b%d*")),
		"one of 60 KB":     content(t, []string{"*"}, []string{strings.Repeat("*a", 30_000) + "b"}),
		"one of 60 KB `?`": content(t, []string{"*"}, []string{"*" + strings.Repeat("a?", 30_000) + "b"}),
		"stars":            content(t, []string{"*"}, []string{strings.Repeat("*", 60_000) + "b"}),
		"no strings":       jsontext.Value(`{"allow":["*"],"deny":[` + strings.Repeat(`[],{},1,null,`, 4_000) + `true]}`),
	}
}

func TestA63_ServerACLAsWeapon(t *testing.T) {
	host := matrix.ServerName(strings.Repeat("a", 63) + "." + strings.Repeat("a", 63) + "." + strings.Repeat("a", 60))
	for name, acl := range weapons(t) {
		t.Run(name, func(t *testing.T) {
			parse, match := time.Hour, time.Hour
			for range 5 {
				begin := time.Now()
				a := Parse(acl)
				parse = min(parse, time.Since(begin))
				begin = time.Now()
				if !a.Allowed(host) {
					t.Error("the server was refused")
				}
				match = min(match, time.Since(begin))
			}
			t.Logf("parse %v, match %v", parse, match)
			if parse > 100*time.Millisecond || match > 10*time.Millisecond {
				t.Errorf("parsing took %v, matching %v", parse, match)
			}
		})
	}
}

func TestAllowed_DoesNotAllocate(t *testing.T) {
	a := Parse(content(t, []string{"*"}, []string{"evil.com", "*.evil.com", "ev?l*"}))
	if n := testing.AllocsPerRun(100, func() { a.Allowed("matrix.example.org:8448") }); n != 0 {
		t.Errorf("Allowed allocates %v times", n)
	}
}

func FuzzACL(f *testing.F) {
	f.Add([]byte(`{"allow":["*"],"deny":["*.evil.com"],"allow_ip_literals":false}`), "a.evil.com:80")
	f.Add([]byte(`{"allow":[1,"a*b?","**"]}`), "[::1]")
	f.Add([]byte(`{"deny":{}}`), "")
	f.Fuzz(func(t *testing.T, content []byte, server string) {
		a := Parse(content)
		got := a.Allowed(matrix.ServerName(server))
		if name, err := matrix.ParseServerName(server); err == nil && a.Allowed(name) != got {
			t.Errorf("the case of %q matters", server)
		}
	})
}

func BenchmarkAllowed(b *testing.B) {
	for name, acl := range map[string]jsontext.Value{
		"small":     content(b, []string{"*"}, []string{"evil.com", "*.evil.com", "*.bad.example"}),
		"1,000":     nil,
		"10k globs": weapons(b)["10,000 globs"],
	} {
		if acl == nil {
			deny := make([]string, 0, 1000)
			for i := range 500 {
				deny = append(deny, fmt.Sprintf("evil%d.com", i), fmt.Sprintf("*.evil%d.com", i))
			}
			acl = content(b, []string{"*"}, deny)
		}
		b.Run(name, func(b *testing.B) {
			a := Parse(acl)
			b.ReportAllocs()
			for b.Loop() {
				a.Allowed("matrix.example.org:8448")
			}
		})
	}
}
