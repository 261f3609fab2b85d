// Package glob matches text against the glob-style patterns of Matrix: `*` stands for any number of characters, `?` for
// exactly one, and nothing else is special.
//
// A Glob is compiled once and matches in time linear in the text: literal pieces between stars are searched from left to
// right and never again, pieces with `?` or with word boundaries run through a bit-parallel automaton that looks at every
// character once. There is no backtracking, so `*a*a*a*b` costs what `*a*b` costs. Cost tells an upper bound beforehand
// for callers that keep a budget.
//
// Matching is exact. For matching without regard to case, compile Fold(pattern) and match Fold(text); a caller that
// matches one text many times folds it once.
//
// The package knows nothing of push rules, filters or server ACLs, which use it, and imposes no limit on patterns:
// callers do.
//
// spec: appendices#glob-style-matching
package glob

import (
	"strings"
	"unicode/utf8"
)

// Glob is a compiled pattern. It is immutable and safe for concurrent use.
type Glob struct {
	pattern string
	// segs are the pieces between stars that are not empty.
	segs []segment
	// head and tail tell whether the pattern begins and ends with a star.
	head, tail bool
	// word is true where a substring between word boundaries suffices.
	word bool
	// min is the fewest bytes that can match.
	min int
	// words is the size of the largest automaton in machine words.
	words int
}

// segment is a piece of a pattern without stars.
type segment struct {
	text string
	// wild is true where `?` in text stands for any character.
	wild bool
	// prog finds the piece; nil for a literal that needs no word boundary.
	prog *program
}

// Compile compiles a pattern that has to match the whole text.
func Compile(pattern string) *Glob { return compile(pattern, true, false) }

// CompileStar is Compile where `*` is the only wildcard and `?` stands for itself, as in filters.
func CompileStar(pattern string) *Glob { return compile(pattern, false, false) }

// CompileWord compiles a pattern that may match any part of the text that starts and ends at a word boundary: at the start
// or end of the text or next to a character other than A-Z, a-z, 0-9 and _.
//
// spec: client-server-api#conditions-1
func CompileWord(pattern string) *Glob { return compile(pattern, true, true) }

// CompileWordLiteral is CompileWord for a text in which nothing is special. An empty one matches everywhere.
func CompileWordLiteral(text string) *Glob {
	g := &Glob{pattern: text, word: true, words: 1}
	g.add(text, false, true)
	return g
}

func compile(pattern string, question, word bool) *Glob {
	g := &Glob{
		pattern: pattern, word: word, words: 1,
		head: strings.HasPrefix(pattern, "*"), tail: strings.HasSuffix(pattern, "*"),
	}
	pieces := strings.FieldsFunc(pattern, func(r rune) bool { return r == '*' })
	g.segs = make([]segment, 0, len(pieces))
	for i, piece := range pieces {
		edge := i == 0 && !g.head || i == len(pieces)-1 && !g.tail
		g.add(piece, question && strings.IndexByte(piece, '?') >= 0, word && edge)
	}
	return g
}

// add appends a piece; bounded is true where one of its ends must be a word boundary.
func (g *Glob) add(piece string, wild, bounded bool) {
	if piece == "" {
		return
	}
	s := segment{text: piece, wild: wild}
	if wild || bounded {
		s.prog = newProgram(piece, wild)
		g.words = max(g.words, s.prog.words)
	}
	g.segs = append(g.segs, s)
	g.min += len(piece) // a `?` is one byte at least
}

// String is the pattern that was compiled.
func (g *Glob) String() string { return g.pattern }

// Any tells whether the pattern consists of stars alone and so matches every text.
func (g *Glob) Any() bool { return len(g.segs) == 0 && g.head }

// Literal returns the only text that the pattern matches, and false where it has a wildcard or matches parts of a text.
func (g *Glob) Literal() (string, bool) {
	if g.word || g.head || g.tail || len(g.segs) > 1 || len(g.segs) == 1 && (g.segs[0].wild || g.segs[0].text != g.pattern) {
		return "", false
	}
	return g.pattern, true
}

// MinLen is the number of bytes below which no text matches.
func (g *Glob) MinLen() int { return g.min }

// Cost is an upper bound of the steps, each about a nanosecond, of matching a text of n bytes.
func (g *Glob) Cost(n int) int {
	if n < g.min {
		return 1
	}
	return n*g.words + 4*len(g.segs)
}

// Match tells whether the pattern matches. Patterns and texts are meant to be valid UTF-8; in others a stray byte counts
// as one character.
func (g *Glob) Match(text string) bool {
	if len(text) < g.min {
		return false
	}
	if g.word {
		return g.matchWord(text)
	}
	segs := g.segs
	if len(segs) == 0 {
		return g.head || text == ""
	}
	if !g.head {
		n := segs[0].prefix(text)
		if n < 0 {
			return false
		}
		text, segs = text[n:], segs[1:]
		if len(segs) == 0 {
			return g.tail || text == ""
		}
	}
	if !g.tail {
		n := segs[len(segs)-1].suffix(text)
		if n < 0 {
			return false
		}
		text, segs = text[:len(text)-n], segs[:len(segs)-1]
	}
	for i := range segs {
		end := segs[i].find(text, 0, false, false)
		if end < 0 {
			return false
		}
		text = text[end:]
	}
	return true
}

// matchWord takes the leftmost occurrence of every piece: as a piece has a fixed number of characters, the leftmost is
// also the one that ends first and leaves most to the next.
func (g *Glob) matchWord(text string) bool {
	at := 0
	for i := range g.segs {
		at = g.segs[i].find(text, at, i == 0 && !g.head, i == len(g.segs)-1 && !g.tail)
		if at < 0 {
			return false
		}
	}
	return true
}

// prefix returns how many bytes of the start of text the piece matches, or -1.
func (s *segment) prefix(text string) int {
	if !s.wild {
		if strings.HasPrefix(text, s.text) {
			return len(s.text)
		}
		return -1
	}
	n := 0
	for _, want := range s.text {
		got, size := utf8.DecodeRuneInString(text[n:])
		if size == 0 || want != '?' && want != got {
			return -1
		}
		n += size
	}
	return n
}

// suffix returns how many bytes of the end of text the piece matches, or -1.
func (s *segment) suffix(text string) int {
	if !s.wild {
		if strings.HasSuffix(text, s.text) {
			return len(s.text)
		}
		return -1
	}
	n := len(text)
	for rest := s.text; rest != ""; {
		want, k := utf8.DecodeLastRuneInString(rest)
		got, size := utf8.DecodeLastRuneInString(text[:n])
		if size == 0 || want != '?' && want != got {
			return -1
		}
		rest, n = rest[:len(rest)-k], n-size
	}
	return len(text) - n
}

// find returns the end of the leftmost occurrence of the piece in text[from:], or -1. With start and end the occurrence
// must begin and end at a word boundary of text.
func (s *segment) find(text string, from int, start, end bool) int {
	if !s.wild {
		i := strings.Index(text[from:], s.text)
		if i < 0 {
			return -1
		}
		from += i
		if (!start || boundary(text, from)) && (!end || boundary(text, from+len(s.text))) {
			return from + len(s.text)
		}
	}
	return s.prog.find(text, from, start, end)
}

// boundary tells whether there is a word boundary before byte i of text: its start, its end, or at least one neighbour
// that is no word character.
func boundary(text string, i int) bool {
	return i == 0 || i == len(text) || !isWord(text[i-1]) || !isWord(text[i])
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}
