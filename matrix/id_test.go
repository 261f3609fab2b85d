package matrix

import (
	"errors"
	"strings"
	"testing"
)

func TestParseServerName(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"matrix.org", "matrix.org:8888", "1.2.3.4", "1.2.3.4:1234", "[1234:5678::abcd]", "[1234:5678::abcd]:5678", "localhost",
		"a-b.example", "[::1]", "Matrix.ORG", "[::ffff:1.2.3.4]:1", strings.Repeat("a", 255), "x:65535",
	} {
		if got, err := ParseServerName(s); err != nil || string(got) != s {
			t.Errorf("ParseServerName(%q) = %q, %v", s, got, err)
		}
	}
	for _, s := range []string{
		"", ":8448", "a:", "a:0", "a:65536", "a:99999", "a:123456", "a:+80", "a: 80", "a:8_0", "a b", "a/b", "a@b", "é.example", "a_b", "::1",
		"[::1", "[::1]x", "[::1]:", "[", "[]", "[1.2.3.4]", "[fe80::1%eth0]", "a\x00", "a:80:80", "a\n", strings.Repeat("a", 256), "http://a",
	} {
		if got, err := ParseServerName(s); !errors.Is(err, ErrBadID) {
			t.Errorf("ParseServerName(%q) = %q, %v", s, got, err)
		}
	}
	if a, b := ServerName("a.example:8448").Host(), ServerName("[::1]:8448").Host(); a != "a.example" || b != "[::1]" {
		t.Errorf("Host = %s, %s", a, b)
	}
}

func TestJ33_UserIDs(t *testing.T) {
	t.Parallel()
	for s, compliant := range map[string]bool{
		"@a:b.example": true, "@A=_-./+9:b.example:8448": true, "@~!:x": true, "@a b:x": false, "@:x": false, "@é:x": false,
		"@\n:x": false, "@a:X.ORG": true, "@a:[::1]": true,
	} {
		u, err := ParseUserID(s)
		if err != nil || string(u) != s || u.IsCompliant() != compliant {
			t.Errorf("ParseUserID(%q) = %q, %v; compliant %v", s, u, err, u.IsCompliant())
		}
	}
	for _, s := range []string{
		"", "@", "a:x", "@a", "@a:", "@a\x00:x", "@a:x y", "@a:b:c", "!a:x", "@a\xff:x", "@" + strings.Repeat("a", 254) + ":x", "@a:x:99999",
	} {
		if u, err := ParseUserID(s); !errors.Is(err, ErrBadID) {
			t.Errorf("ParseUserID(%q) = %q, %v", s, u, err)
		}
	}
	u := UserID("@a:b.example:1")
	if u.Localpart() != "a" || u.Server() != "b.example:1" {
		t.Errorf("parts of %s: %s, %s", u, u.Localpart(), u.Server())
	}
}

func TestJ33_Localparts(t *testing.T) {
	t.Parallel()
	if u, err := ParseLocalpart("a.b_c=d-e/f+0", "x.example"); err != nil || u != "@a.b_c=d-e/f+0:x.example" {
		t.Errorf("ParseLocalpart = %s, %v", u, err)
	}
	for _, s := range []string{"", "A", "a b", "é", "a:b", "a@b", "a~", strings.Repeat("a", 245)} {
		u, err := ParseLocalpart(s, "x.example")
		if e, ok := errors.AsType[*Error](err); !ok || e.Status != 400 || e.Code != CodeInvalidUsername {
			t.Errorf("ParseLocalpart(%q) = %s, %v", s, u, err)
		}
	}
}

func TestParseRoomID(t *testing.T) {
	t.Parallel()
	hash := "!" + strings.Repeat("Az0-_", 8) + "abc"
	for s, server := range map[string]string{"!a:b.example": "b.example", hash: "", "!:x": "x", "!#a/b\nc <u>:x:1": "x:1", "!é:x": "x"} {
		r, err := ParseRoomID(s)
		if err != nil || string(r) != s || string(r.Server()) != server {
			t.Errorf("ParseRoomID(%q) = %q, %v; server %q", s, r, err, r.Server())
		}
	}
	for _, s := range []string{"", "!", "!no-colon", "a:x", "#a:x", hash + "x", hash[:43], "!" + strings.Repeat("+", 43), "!a:", "!a\x00:x", "!\xff:x", "!" + strings.Repeat("a", 254) + ":x"} {
		if r, err := ParseRoomID(s); !errors.Is(err, ErrBadID) {
			t.Errorf("ParseRoomID(%q) = %q, %v", s, r, err)
		}
	}
}

func TestParseRoomAlias(t *testing.T) {
	t.Parallel()
	if a, err := ParseRoomAlias("#ä b:x.example"); err != nil || a.Localpart() != "ä b" || a.Server() != "x.example" {
		t.Errorf("ParseRoomAlias = %q, %v", a, err)
	}
	for _, s := range []string{"", "#", "#:x", "#a", "a:x", "#a\x00:x", "#a:x y"} {
		if a, err := ParseRoomAlias(s); !errors.Is(err, ErrBadID) {
			t.Errorf("ParseRoomAlias(%q) = %q, %v", s, a, err)
		}
	}
}

func TestParseEventID(t *testing.T) {
	t.Parallel()
	for s, server := range map[string]string{"$a:x.example": "x.example", "$" + strings.Repeat("A/+", 14) + "A": "", "$x": ""} {
		if e, err := ParseEventID(s); err != nil || string(e.Server()) != server {
			t.Errorf("ParseEventID(%q) = %q, %v; server %q", s, e, err, e.Server())
		}
	}
	for _, s := range []string{"", "$", "x", "$\xff", "$a\x00", "$" + strings.Repeat("a", 255)} {
		if e, err := ParseEventID(s); !errors.Is(err, ErrBadID) {
			t.Errorf("ParseEventID(%q) = %q, %v", s, e, err)
		}
	}
}

func FuzzServerName(f *testing.F) {
	for _, s := range []string{"a.example:8448", "[::1]:1", "1.2.3.4", "[", "a:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseServerName(s)
		if err != nil {
			return
		}
		if string(n) != s || len(s) > MaxIDLength || n.Host() == "" || !strings.HasPrefix(s, n.Host()) || strings.ContainsAny(s, " /@\\\"\x00\n") {
			t.Fatalf("ParseServerName(%q) = %q, host %q", s, n, n.Host())
		}
	})
}

func FuzzIDs(f *testing.F) {
	for _, s := range []string{"@a:b.example", "!a:b", "#a:b", "$x", "@:x", "!" + strings.Repeat("A", 43)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if u, err := ParseUserID(s); err == nil && "@"+u.Localpart()+":"+string(u.Server()) != s {
			t.Fatalf("user ID %q falls into %q and %q", s, u.Localpart(), u.Server())
		}
		if a, err := ParseRoomAlias(s); err == nil && "#"+a.Localpart()+":"+string(a.Server()) != s {
			t.Fatalf("alias %q falls into %q and %q", s, a.Localpart(), a.Server())
		}
		if r, err := ParseRoomID(s); err == nil && string(r) != s {
			t.Fatalf("room ID %q became %q", s, r)
		}
		_, _ = ParseEventID(s)
		_, _ = ParseLocalpart(s, "x.example")
	})
}
