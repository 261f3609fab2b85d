package canonicaljson

import "bytes"

// Place is where a top-level member with this key belongs in a canonical object that lacks it: the position of the first
// greater key, or of the closing brace.
func Place(object []byte, key string) int {
	at := 1
	for k, v := range Members(object) {
		if compareKeys(k, []byte(key)) > 0 {
			return at
		}
		at += len(k) + 3 + len(v) + 1
	}
	return len(object) - 1
}

// AppendInserted appends a canonical object with one more member, which belongs at the position that Place has found. The
// key must need no escapes.
func AppendInserted(dst, object []byte, at int, key string, value []byte) []byte {
	dst = append(dst, object[:at]...)
	last := at == len(object)-1
	if last && len(object) > 2 {
		dst = append(dst, ',')
	}
	dst = append(append(append(append(dst, '"'), key...), '"', ':'), value...)
	if !last {
		dst = append(dst, ',')
	}
	return append(dst, object[at:]...)
}

// Set returns a new canonical object in which the member has this value. The key must need no escapes. Anything but an
// object counts as an empty one.
func Set(object []byte, key string, value []byte) []byte {
	if len(object) < 2 || object[0] != '{' {
		object = []byte("{}")
	}
	object, _ = Cut(bytes.Clone(object), key)
	return AppendInserted(make([]byte, 0, len(object)+len(key)+len(value)+4), object, Place(object, key), key, value)
}

// Cut takes a top-level member out of a canonical object, which is changed in place, and returns what is left and the
// value; the value is nil where there is no such member. The key must need no escapes.
func Cut(object []byte, key string) (rest, value []byte) {
	at := 1
	for k, v := range Members(object) {
		end := at + len(k) + 3 + len(v)
		if string(k) != key {
			at = end + 1
			continue
		}
		value = bytes.Clone(v)
		switch {
		case at > 1:
			at--
		case object[end] == ',':
			end++
		}
		return append(object[:at], object[end:]...), value
	}
	return object, nil
}
