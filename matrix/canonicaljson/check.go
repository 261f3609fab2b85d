package canonicaljson

import (
	"bytes"
	"unicode/utf8"
)

// check tells whether src begins with a value in canonical form and how long that is. It writes nothing and stops at the
// first deviation.
func check(src []byte, strict bool) (n int, ok bool) {
	if !utf8.Valid(src) {
		return 0, false
	}
	return checkValue(src, 0, 0, strict)
}

// checkValue checks the value at b[i:] and returns the position after it.
func checkValue(b []byte, i, depth int, strict bool) (int, bool) {
	if i >= len(b) {
		return i, false
	}
	switch c := b[i]; {
	case c == '"':
		return checkString(b, i)
	case c == '{':
		return checkObject(b, i, depth+1, strict)
	case c == '[':
		return checkArray(b, i, depth+1, strict)
	case c == '-' || c >= '0' && c <= '9':
		n, integer := numberEnd(b[i:])
		num := b[i : i+n]
		if n == 0 || strict && (!integer || !isStrictInteger(num)) {
			return i, false
		}
		if !strict && (isNegativeZero(num) || !integer && bytes.ContainsAny(num, "eE")) {
			return i, false
		}
		return i + n, true
	case c == 't':
		return checkWord(b, i, "true")
	case c == 'f':
		return checkWord(b, i, "false")
	case c == 'n':
		return checkWord(b, i, "null")
	}
	return i, false
}

func checkWord(b []byte, i int, word string) (int, bool) {
	end := i + len(word)
	return end, end <= len(b) && string(b[i:end]) == word
}

// checkString checks the string at b[i:], of which b[i] is the opening quote.
func checkString(b []byte, i int) (int, bool) {
	i++
	for {
		i += plainPrefix(b[i:])
		if i >= len(b) || b[i] < 0x20 {
			return i, false
		}
		if b[i] == '"' {
			return i + 1, true
		}
		if i+1 >= len(b) {
			return i, false
		}
		switch b[i+1] {
		case '"', '\\', 'b', 'f', 'n', 'r', 't':
			i += 2
		case 'u':
			r, ok := hex4(b[i+2:])
			if !ok || r >= 0x20 || r >= '\b' && r <= '\r' && r != '\v' || b[i+5] >= 'A' && b[i+5] <= 'F' {
				return i, false
			}
			i += 6
		default:
			return i, false
		}
	}
}

func checkArray(b []byte, i, depth int, strict bool) (int, bool) {
	if depth > MaxDepth {
		return i, false
	}
	i++
	if i < len(b) && b[i] == ']' {
		return i + 1, true
	}
	for {
		var ok bool
		if i, ok = checkValue(b, i, depth, strict); !ok || i >= len(b) {
			return i, false
		}
		switch b[i] {
		case ',':
			i++
		case ']':
			return i + 1, true
		default:
			return i, false
		}
	}
}

func checkObject(b []byte, i, depth int, strict bool) (int, bool) {
	if depth > MaxDepth {
		return i, false
	}
	i++
	if i < len(b) && b[i] == '}' {
		return i + 1, true
	}
	var last []byte
	for first := true; ; first = false {
		if i >= len(b) || b[i] != '"' {
			return i, false
		}
		end, ok := checkString(b, i)
		if !ok || end >= len(b) || b[end] != ':' {
			return i, false
		}
		key := b[i+1 : end-1]
		if !first && compareKeys(last, key) >= 0 {
			return i, false
		}
		last = key
		if i, ok = checkValue(b, end+1, depth, strict); !ok || i >= len(b) {
			return i, false
		}
		switch b[i] {
		case ',':
			i++
		case '}':
			return i + 1, true
		default:
			return i, false
		}
	}
}

// compareKeys compares two keys in canonical spelling by the code points that they stand for. Code points compare like
// the bytes of their UTF-8, so only escape sequences need a second look, and each of those stands for one byte.
func compareKeys(a, b []byte) int {
	if bytes.IndexByte(a, '\\') < 0 && bytes.IndexByte(b, '\\') < 0 {
		return bytes.Compare(a, b)
	}
	for len(a) > 0 && len(b) > 0 {
		x, n := keyByte(a)
		y, m := keyByte(b)
		if x != y {
			return int(x) - int(y)
		}
		a, b = a[n:], b[m:]
	}
	return len(a) - len(b)
}

// keyByte is the first byte that a canonical string stands for and the length of its spelling.
func keyByte(b []byte) (byte, int) {
	if b[0] != '\\' {
		return b[0], 1
	}
	r, n, err := unescape(b)
	if err != nil {
		return b[0], 1
	}
	return byte(r), n
}

func invalidUTF8(b []byte) int {
	for i := 0; i < len(b); {
		r, size := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return len(b)
}
