package appservices

import (
	"regexp/syntax"
	"strings"
)

// example makes a short name that fits a regular expression, empty where that is not easy. Two expressions of which one fits the example
// of the other overlap.
func example(regex string) string {
	re, err := syntax.Parse(regex, syntax.Perl)
	if err != nil {
		return ""
	}
	var b strings.Builder
	if !write(&b, re.Simplify()) {
		return ""
	}
	return b.String()
}

// write appends the shortest text that fits, by taking the first of all alternatives.
func write(b *strings.Builder, re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpLiteral:
		b.WriteString(string(re.Rune))
	case syntax.OpCharClass:
		if len(re.Rune) == 0 {
			return false
		}
		b.WriteRune(re.Rune[0])
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte('x')
	case syntax.OpCapture, syntax.OpPlus:
		return write(b, re.Sub[0])
	case syntax.OpConcat:
		for _, s := range re.Sub {
			if !write(b, s) {
				return false
			}
		}
	case syntax.OpAlternate:
		return write(b, re.Sub[0])
	case syntax.OpNoMatch:
		return false
	case syntax.OpRepeat:
		for range re.Min {
			if !write(b, re.Sub[0]) {
				return false
			}
		}
	}
	return b.Len() <= maxRegex // what is left fits the empty text
}
