package media

import (
	"mime"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestM201_ActiveContent(t *testing.T) {
	t.Parallel()
	for typ, want := range map[string]string{
		"text/html":                                "attachment",
		"image/svg+xml":                            "attachment",
		"application/xhtml+xml":                    "attachment",
		"application/pdf":                          "attachment",
		"text/xml":                                 "attachment",
		"application/javascript":                   "attachment",
		"text/javascript":                          "attachment",
		"":                                         "attachment",
		"image/png":                                "inline",
		"IMAGE/PNG; charset=x":                     "inline",
		"image/png, text/html":                     "attachment",
		"text/plain; charset=utf-8":                "inline",
		"video/mp4":                                "inline",
		"image/png;x=\r\nSet-Cookie: a=b":          "attachment",
		"image/png; x=\"a\r\nb\"":                  "attachment",
		"image/svg+xml; image/png":                 "attachment",
		"image/" + strings.Repeat("p", 300):        "attachment",
		"multipart/mixed; boundary=image/png":      "attachment",
		"text/html\x00image/png":                   "attachment",
		"image/png\xff":                            "attachment",
		"application/octet-stream; name=image/png": "attachment",
	} {
		clean := CleanType(typ)
		if strings.ContainsAny(clean, "\r\n\x00") || len(clean) > maxType {
			t.Errorf("CleanType(%q) = %q", typ, clean)
		}
		if got := Disposition(clean, ""); got != want {
			t.Errorf("%q is kept as %q and shown %s, want %s", typ, clean, got, want)
		}
	}
	for typ, want := range map[string]string{"": defaultType, "png": defaultType, "Text/Plain; Charset=UTF-8": "text/plain; charset=UTF-8", "image/png": "image/png"} {
		if got := CleanType(typ); got != want {
			t.Errorf("CleanType(%q) = %q, want %q", typ, got, want)
		}
	}
}

func TestM202_FileNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"plain.txt":                               "plain.txt",
		"War and Peace.pdf":                       "War and Peace.pdf",
		"a\"b;c=d.txt":                            "a\"b;c=d.txt",
		"a\r\nSet-Cookie: x=y":                    "aSet-Cookie: x=y",
		"photo\u202egnp.exe":                      "photognp.exe",
		"../../etc/passwd":                        ".._.._etc_passwd",
		`C:\windows\x.exe`:                        "C:_windows_x.exe",
		"\x00\x01\x7f\u0085\u2028\u2066":          "",
		"m\u00fcller \U0001f600.png":              "m\u00fcller \U0001f600.png",
		"\U0001f469\u200d\U0001f680.png":          "\U0001f469\u200d\U0001f680.png",
		"\xff\xfe.bin":                            ".bin",
		strings.Repeat("\u00fc", 10_000):          strings.Repeat("\u00fc", 127),
		"   ":                                     "",
		"100% \"sure\" \\ but d\u00e9j\u00e0.txt": "100% \"sure\" _ but d\u00e9j\u00e0.txt",
	} {
		got := CleanName(name)
		if got != want {
			t.Errorf("CleanName(%.40q) = %q, want %q", name, got, want)
		}
		checkDisposition(t, name)
	}
}

// checkDisposition fails unless a file name comes out of the header as it was cleaned.
func checkDisposition(t *testing.T, name string) {
	t.Helper()
	h := Disposition("image/png", name)
	if strings.ContainsFunc(h, func(r rune) bool { return r < ' ' || r > '~' }) || len(h) > 1200 {
		t.Errorf("the header for %.40q is %q", name, h)
	}
	kind, params, err := mime.ParseMediaType(h)
	if err != nil || kind != "inline" || params["filename"] != CleanName(name) {
		t.Errorf("the header for %.40q reads as %q, %q, %v: %s", name, kind, params["filename"], err, h)
	}
}

func FuzzCleanName(f *testing.F) {
	for _, s := range []string{"a.png", "\u202e\r\n\"", "%41", "a;filename*=x", "\xff/\\", strings.Repeat("x", 300)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		clean := CleanName(name)
		if len(clean) > maxName || !utf8.ValidString(clean) || strings.ContainsFunc(clean, unicode.IsControl) || strings.ContainsAny(clean, `/\`) {
			t.Errorf("CleanName(%q) = %q", name, clean)
		}
		if again := CleanName(clean); again != clean {
			t.Errorf("CleanName(%q) = %q", clean, again)
		}
		checkDisposition(t, name)
		if typ := CleanType(name); CleanType(typ) != typ {
			t.Errorf("CleanType(%q) = %q, which is not clean", name, typ)
		}
	})
}
