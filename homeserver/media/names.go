package media

import (
	"mime"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	defaultType = "application/octet-stream"
	maxType     = 255
	maxName     = 255
)

// CleanType is a content type as it may be stored and sent: one that cannot be parsed, or is oversized, is none.
func CleanType(declared string) string {
	if len(declared) > maxType {
		return defaultType
	}
	base, params, err := mime.ParseMediaType(declared)
	if err != nil || !strings.Contains(base, "/") {
		return defaultType
	}
	out := mime.FormatMediaType(base, params)
	if out == "" || len(out) > maxType || strings.ContainsFunc(out, func(r rune) bool { return r < ' ' || r > '~' }) {
		return defaultType
	}
	return out
}

// baseType is a content type without parameters, in lower case.
func baseType(contentType string) string {
	base, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(base))
}

// CleanName is a file name without what could mislead or break out: control characters, marks that turn the direction of
// writing, separators of paths. It is cut at 255 bytes. An empty name is none.
func CleanName(name string) string {
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(name, "") {
		switch {
		case r == '/' || r == '\\':
			r = '_'
		case r == '\u200c' || r == '\u200d': // joiners belong to many scripts and to emoji
		case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co):
			continue
		}
		if b.Len()+utf8.RuneLen(r) > maxName {
			break
		}
		b.WriteRune(r)
	}
	return strings.TrimSpace(b.String())
}

// inline says whether browsers may show content of this type in place.
//
// spec: client-server-api#serving-inline-content
func inline(contentType string) bool {
	switch baseType(contentType) {
	case "text/css", "text/plain", "text/csv", "application/json", "application/ld+json",
		"image/jpeg", "image/gif", "image/png", "image/apng", "image/webp", "image/avif",
		"video/mp4", "video/webm", "video/ogg", "video/quicktime",
		"audio/mp4", "audio/webm", "audio/aac", "audio/mpeg", "audio/ogg", "audio/wave", "audio/wav", "audio/x-wav", "audio/x-pn-wav",
		"audio/flac", "audio/x-flac":
		return true
	}
	return false
}

// Disposition is the Content-Disposition header of content: RFC 6266, with names beyond ASCII as in RFC 8187.
func Disposition(contentType, name string) string {
	out := "attachment"
	if inline(contentType) {
		out = "inline"
	}
	name = CleanName(name)
	if name == "" {
		return out
	}
	var plain, encoded strings.Builder
	ascii := true
	for _, r := range name {
		switch {
		case r == '"', r == '\\', r == '%':
			ascii = false
			plain.WriteByte('_')
		case r > '~':
			ascii = false
			plain.WriteByte('_')
		default:
			plain.WriteRune(r)
		}
	}
	if out += `; filename="` + plain.String() + `"`; ascii {
		return out
	}
	for i := 0; i < len(name); i++ {
		if c := name[i]; c < utf8.RuneSelf && (unicode.IsLetter(rune(c)) || unicode.IsDigit(rune(c)) || strings.IndexByte("!#$&+-.^_`|~", c) >= 0) {
			encoded.WriteByte(c)
		} else {
			const hex = "0123456789ABCDEF"
			encoded.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return out + "; filename*=UTF-8''" + encoded.String()
}
