package glob

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Fold maps a text to a form that is equal for texts that differ only in case, one character to one character. A
// character outside ASCII never becomes one inside, so word boundaries stay where they were.
func Fold(s string) string {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= utf8.RuneSelf || c >= 'A' && c <= 'Z' {
			return fold(s, i)
		}
	}
	return s
}

func fold(s string, from int) string {
	var b strings.Builder
	b.Grow(len(s))
	b.WriteString(s[:from])
	for i := from; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= 'A' && c <= 'Z' {
				c += 'a' - 'A'
			}
			b.WriteByte(c)
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			b.WriteByte(c)
		} else {
			b.WriteRune(foldRune(r))
		}
		i += size
	}
	return b.String()
}

// foldRune goes through upper case so that letters with two lower-case forms (such as the final sigma) become one.
func foldRune(r rune) rune {
	if f := unicode.ToLower(unicode.ToUpper(r)); f >= utf8.RuneSelf {
		return f
	}
	if f := unicode.ToLower(r); f >= utf8.RuneSelf {
		return f
	}
	return r
}
