package canonicaljson

import (
	"bytes"
	"iter"
	"strconv"
)

// Members walks over the members of a canonical object: the key without its quotes, in canonical spelling, and the
// value. A value that is no object has no members; a broken object ends early.
func Members(object []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		if len(object) < 2 || object[0] != '{' {
			return
		}
		for i := 1; i < len(object) && object[i] == '"'; {
			end := skipString(object, i)
			if end >= len(object) || object[end] != ':' {
				return
			}
			stop := Skip(object, end+1)
			if stop >= len(object) || stop == end+1 || !yield(object[i+1:end-1:end-1], object[end+1:stop:stop]) || object[stop] != ',' {
				return
			}
			i = stop + 1
		}
	}
}

// Elements walks over the elements of a canonical array.
func Elements(array []byte) iter.Seq[[]byte] {
	return func(yield func(value []byte) bool) {
		if len(array) <= 2 || array[0] != '[' {
			return
		}
		for i := 1; i < len(array); {
			stop := Skip(array, i)
			if stop >= len(array) || stop == i || !yield(array[i:stop:stop]) || array[stop] != ',' {
				return
			}
			i = stop + 1
		}
	}
}

// Find returns the value of a member of a canonical object. The key must need no escapes.
func Find(object []byte, key string) (value []byte, ok bool) {
	for k, v := range Members(object) {
		if string(k) == key {
			return v, true
		}
	}
	return nil, false
}

// Skip returns the position after the value that begins at b[i], where b is canonical JSON.
func Skip(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			i = skipString(b, i)
		case '{', '[':
			depth++
			i++
			continue
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
			i++
		case ',', ':':
			if depth == 0 {
				return i
			}
			i++
			continue
		default:
			for i++; i < len(b) && b[i] != ',' && b[i] != '}' && b[i] != ']' && b[i] != ':'; {
				i++
			}
		}
		if depth == 0 {
			return i
		}
	}
	return len(b)
}

// skipString returns the position after the string whose opening quote is b[i].
func skipString(b []byte, i int) int {
	i++
	for i < len(b) {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return len(b)
		}
		i += n
		back := i - 1
		for b[back] == '\\' {
			back--
		}
		if (i-1-back)%2 == 0 {
			return i + 1
		}
		i++
	}
	return len(b)
}

// String decodes a canonical string with its quotes; ok is false for any other value.
func String(value []byte) (s string, ok bool) {
	if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
		return "", false
	}
	body := value[1 : len(value)-1]
	if bytes.IndexByte(body, '\\') < 0 {
		return string(body), true
	}
	out := make([]byte, 0, len(body))
	for len(body) > 0 {
		if body[0] != '\\' {
			n := bytes.IndexByte(body, '\\')
			if n < 0 {
				n = len(body)
			}
			out, body = append(out, body[:n]...), body[n:]
			continue
		}
		r, n, err := unescape(body)
		if err != nil {
			return "", false
		}
		out, body = append(out, string(r)...), body[n:]
	}
	return string(out), true
}

// Int decodes a plain integer; ok is false for any other value and for what an int64 cannot hold.
func Int(value []byte) (n int64, ok bool) {
	if len(value) == 0 || len(value) > 20 || value[0] != '-' && (value[0] < '0' || value[0] > '9') {
		return 0, false
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	return n, err == nil
}
