// Package canonicaljson makes and checks Canonical JSON, the one form of a JSON value that is hashed and signed: keys in
// the order of their code points, no white space, the shortest escapes, and integers that every double can hold.
//
// It is also the strict reader of everything that strangers send: what Append has accepted has no duplicate keys, no bad
// UTF-8, no lone surrogates and a bounded depth, and exactly one spelling. So the rest of the server may compare keys and
// look up members byte by byte (Find, Members) and can never read another value than the one that was hashed.
//
// Two grades exist. Strict is the letter of the specification and holds for room version 6 and later and for everything
// that this server makes. Lenient is for room versions 1 to 5, whose events may hold floats and large integers: numbers
// stay as they are, except that the spellings which the specification rewrites (-0, 1e10) are rewritten.
// Nothing is ever repaired in silence in the strict grade: it is an error.
//
// spec: appendices#canonical-json
package canonicaljson

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
	"unicode/utf8"
)

// MaxDepth is how deep objects and arrays may nest.
const MaxDepth = 100

// Canonicalize returns the canonical form of one JSON value. It returns src itself where that is canonical already, so
// the caller must not change src afterwards. The error is always an *Error.
func Canonicalize(src []byte, strict bool) ([]byte, error) {
	if n, ok := check(src, strict); ok && n == len(src) {
		return src, nil
	}
	return encode(make([]byte, 0, len(src)), src, strict, "")
}

// Append appends the canonical form of src to dst. On error dst is returned as it was.
func Append(dst, src []byte, strict bool) ([]byte, error) {
	if n, ok := check(src, strict); ok && n == len(src) {
		return append(dst, src...), nil
	}
	return encode(dst, src, strict, "")
}

// AppendWithout is Append for an object of which one top-level member is left out. The value of that member must be
// JSON, but its numbers need not be canonical.
func AppendWithout(dst, src []byte, strict bool, drop string) ([]byte, error) {
	return encode(dst, src, strict, drop)
}

// IsCanonical tells whether src is strict Canonical JSON, and nothing else.
func IsCanonical(src []byte) bool {
	n, ok := check(src, true)
	return ok && n == len(src)
}

// member is where one member of an object stands in the output: its key without quotes, and its end.
type member struct{ key, keyEnd, end int }

// encoder turns src, read at pos, into out.
type encoder struct {
	src     []byte
	pos     int
	out     []byte
	strict  bool
	drop    string
	members []member
	scratch []byte
	// room is where members begin to grow, so that a usual object needs no memory for them.
	room [20]member
}

func encode(dst, src []byte, strict bool, drop string) ([]byte, error) {
	if !utf8.Valid(src) {
		return dst, &Error{Kind: NotUTF8, Offset: invalidUTF8(src)}
	}
	e := &encoder{src: src, out: dst, strict: strict, drop: drop}
	e.members = e.room[:0]
	if err := e.value(0); err != nil {
		return dst, err
	}
	if e.space(); e.pos != len(src) {
		return dst, e.fail(Syntax, "more data after the value")
	}
	return e.out, nil
}

func (e *encoder) fail(kind Kind, detail string) error {
	return &Error{Kind: kind, Offset: e.pos, Detail: detail}
}

func (e *encoder) space() {
	for e.pos < len(e.src) {
		switch e.src[e.pos] {
		case ' ', '\t', '\n', '\r':
			e.pos++
		default:
			return
		}
	}
}

// next skips white space and returns the byte at the new position, 0 at the end.
func (e *encoder) next() byte {
	e.space()
	if e.pos < len(e.src) {
		return e.src[e.pos]
	}
	return 0
}

func (e *encoder) value(depth int) error {
	switch c := e.next(); {
	case c == '{':
		return e.object(depth + 1)
	case c == '[':
		return e.array(depth + 1)
	case c == '"':
		return e.str()
	case c == '-' || c >= '0' && c <= '9':
		return e.number()
	case c == 't':
		return e.literal("true")
	case c == 'f':
		return e.literal("false")
	case c == 'n':
		return e.literal("null")
	case e.pos >= len(e.src):
		return e.fail(Syntax, "unexpected end")
	}
	return e.fail(Syntax, "unexpected character")
}

func (e *encoder) literal(word string) error {
	if len(e.src)-e.pos < len(word) || string(e.src[e.pos:e.pos+len(word)]) != word {
		return e.fail(Syntax, "unknown word")
	}
	e.pos += len(word)
	e.out = append(e.out, word...)
	return nil
}

func (e *encoder) array(depth int) error {
	if depth > MaxDepth {
		return e.fail(TooDeep, "")
	}
	e.pos++
	e.out = append(e.out, '[')
	if e.next() == ']' {
		e.pos++
		e.out = append(e.out, ']')
		return nil
	}
	for {
		if err := e.value(depth); err != nil {
			return err
		}
		switch e.next() {
		case ',':
			e.pos++
			e.out = append(e.out, ',')
		case ']':
			e.pos++
			e.out = append(e.out, ']')
			return nil
		default:
			return e.fail(Syntax, "expected , or ] in an array")
		}
	}
}

func (e *encoder) object(depth int) error {
	if depth > MaxDepth {
		return e.fail(TooDeep, "")
	}
	e.pos++
	e.out = append(e.out, '{')
	if e.next() == '}' {
		e.pos++
		e.out = append(e.out, '}')
		return nil
	}
	first, start := len(e.members), len(e.out)
	dropped, sorted := false, true
	for {
		drop, err := e.member(depth, start)
		switch {
		case err != nil:
			return err
		case drop && dropped:
			return e.fail(DuplicateKey, e.drop)
		case drop:
			dropped = true
		case len(e.members) > first+1:
			m := e.members[len(e.members)-2:]
			sorted = sorted && compareKeys(e.out[m[0].key:m[0].keyEnd], e.out[m[1].key:m[1].keyEnd]) < 0
		}
		switch e.next() {
		case ',':
			e.pos++
		case '}':
			e.pos++
			if !sorted {
				if err := e.sort(start, e.members[first:]); err != nil {
					return err
				}
			}
			e.members = e.members[:first]
			e.out = append(e.out, '}')
			return nil
		default:
			return e.fail(Syntax, "expected , or } in an object")
		}
	}
}

// member copies one `"key":value`, with a comma before it where the output of this object has begun, and records it.
// It tells whether the member was the one to leave out.
func (e *encoder) member(depth, start int) (drop bool, err error) {
	if e.next() != '"' {
		return false, e.fail(Syntax, "expected a key")
	}
	before := len(e.out)
	if before > start {
		e.out = append(e.out, ',')
	}
	key := len(e.out) + 1
	if err := e.str(); err != nil {
		return false, err
	}
	keyEnd := len(e.out) - 1
	if e.next() != ':' {
		return false, e.fail(Syntax, "expected : after a key")
	}
	e.pos++
	if depth == 1 && e.drop != "" && string(e.out[key:keyEnd]) == e.drop {
		strict := e.strict
		e.strict = false
		err := e.value(depth)
		e.strict, e.out = strict, e.out[:before]
		return true, err
	}
	e.out = append(e.out, ':')
	if err := e.value(depth); err != nil {
		return false, err
	}
	e.members = append(e.members, member{key, keyEnd, len(e.out)})
	return false, nil
}

// sort puts the members that were written from start on into order and refuses equal keys.
func (e *encoder) sort(start int, members []member) error {
	if e.scratch == nil {
		e.scratch = make([]byte, 0, len(e.src))
	}
	base := len(e.scratch)
	e.scratch = append(e.scratch, e.out[start:]...)
	old := e.scratch[base:]
	sortMembers(members, old, start)
	e.out = e.out[:start]
	for i, m := range members {
		key := old[m.key-start : m.keyEnd-start]
		if i > 0 {
			p := members[i-1]
			if bytes.Equal(old[p.key-start:p.keyEnd-start], key) {
				return e.fail(DuplicateKey, string(key))
			}
			e.out = append(e.out, ',')
		}
		e.out = append(e.out, old[m.key-1-start:m.end-start]...)
	}
	e.scratch = e.scratch[:base]
	return nil
}

// sortMembers sorts members by their keys, which stand in old, the output from start on.
func sortMembers(members []member, old []byte, start int) {
	compare := func(a, b member) int {
		return compareKeys(old[a.key-start:a.keyEnd-start], old[b.key-start:b.keyEnd-start])
	}
	if len(members) > 16 {
		slices.SortFunc(members, compare)
		return
	}
	for i := range members {
		for j := i; j > 0 && compare(members[j], members[j-1]) < 0; j-- {
			members[j], members[j-1] = members[j-1], members[j]
		}
	}
}

// str copies a string, choosing the shortest escapes.
func (e *encoder) str() error {
	e.pos++
	e.out = append(e.out, '"')
	for {
		n := plainPrefix(e.src[e.pos:])
		e.out = append(e.out, e.src[e.pos:e.pos+n]...)
		e.pos += n
		if e.pos >= len(e.src) {
			return e.fail(Syntax, "unexpected end of a string")
		}
		switch e.src[e.pos] {
		case '"':
			e.pos++
			e.out = append(e.out, '"')
			return nil
		case '\\':
			r, size, err := unescape(e.src[e.pos:])
			if err != nil {
				err.Offset += e.pos
				return err
			}
			e.pos += size
			e.out = appendRune(e.out, r)
		default:
			return e.fail(Syntax, "control character in a string")
		}
	}
}

// plainPrefix is how many bytes of b stand for themselves in a JSON string: no quote, backslash or control character.
func plainPrefix(b []byte) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(b); i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		quote, slash := x^(ones*'"'), x^(ones*'\\')
		// The lowest marked byte of each term is exact, which is all that is asked for.
		mark := ((x - ones*0x20) &^ x) | ((quote - ones) &^ quote) | ((slash - ones) &^ slash)
		if mark &= highs; mark != 0 {
			return i + bits.TrailingZeros64(mark)/8
		}
	}
	for ; i < len(b); i++ {
		if c := b[i]; c < 0x20 || c == '"' || c == '\\' {
			return i
		}
	}
	return i
}

// unescape reads the escape sequence that b begins with.
func unescape(b []byte) (r rune, size int, err *Error) {
	if len(b) < 2 {
		return 0, 0, &Error{Kind: Syntax, Detail: "unexpected end of a string"}
	}
	switch b[1] {
	case '"', '\\', '/':
		return rune(b[1]), 2, nil
	case 'b':
		return '\b', 2, nil
	case 'f':
		return '\f', 2, nil
	case 'n':
		return '\n', 2, nil
	case 'r':
		return '\r', 2, nil
	case 't':
		return '\t', 2, nil
	case 'u':
	default:
		return 0, 0, &Error{Kind: Syntax, Detail: "unknown escape sequence"}
	}
	r, ok := hex4(b[2:])
	switch {
	case !ok:
		return 0, 0, &Error{Kind: Syntax, Detail: "malformed escape sequence"}
	case r < 0xD800 || r > 0xDFFF:
		return r, 6, nil
	case r >= 0xDC00 || len(b) < 12 || b[6] != '\\' || b[7] != 'u':
		return 0, 0, &Error{Kind: LoneSurrogate}
	}
	low, ok := hex4(b[8:])
	if !ok || low < 0xDC00 || low > 0xDFFF {
		return 0, 0, &Error{Kind: LoneSurrogate}
	}
	return 0x10000 + (r-0xD800)<<10 + (low - 0xDC00), 12, nil
}

func hex4(b []byte) (r rune, ok bool) {
	if len(b) < 4 {
		return 0, false
	}
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// AppendString appends s as a canonical JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD.
func AppendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		r, size := rune(c), 1
		if c >= utf8.RuneSelf {
			if r, size = utf8.DecodeRuneInString(s[i:]); r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
		}
		dst = appendRune(append(dst, s[start:i]...), r)
		i += size
		start = i
	}
	return append(append(dst, s[start:]...), '"')
}

// appendRune appends one character of a string in its canonical spelling.
func appendRune(dst []byte, r rune) []byte {
	const digits = "0123456789abcdef"
	switch {
	case r == '"' || r == '\\':
		return append(dst, '\\', byte(r))
	case r >= 0x20:
		return utf8.AppendRune(dst, r)
	case r == '\b':
		return append(dst, '\\', 'b')
	case r == '\t':
		return append(dst, '\\', 't')
	case r == '\n':
		return append(dst, '\\', 'n')
	case r == '\f':
		return append(dst, '\\', 'f')
	case r == '\r':
		return append(dst, '\\', 'r')
	}
	return append(dst, '\\', 'u', '0', '0', digits[r>>4], digits[r&15])
}
