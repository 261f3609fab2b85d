package filter

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix/propertypath"
)

// Fields is a compiled `event_fields`: the properties of an event to return. A nil one returns everything.
type Fields struct {
	paths []string
	root  fieldTree
}

// fieldTree holds the wanted members of an object; a member whose tree is nil is wanted whole.
type fieldTree map[string]fieldTree

// readFields reads event_fields. A server may return more than asked for, so an empty list, which would leave `{}` of
// every event, counts as absent.
func readFields(o object) (*Fields, error) {
	list, err := o.list("event_fields")
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return NewFields(list), nil
}

// NewFields compiles a list of property paths.
//
// spec: appendices#dot-separated-property-paths
func NewFields(paths []string) *Fields {
	f := &Fields{paths: paths, root: fieldTree{}}
	for _, path := range paths {
		f.root.add(propertypath.Split(path))
	}
	return f
}

func (t fieldTree) add(names []string) {
	for i, name := range names {
		inner, ok := t[name]
		switch {
		case ok && inner == nil: // wanted whole already
			return
		case i == len(names)-1:
			t[name] = nil
			return
		case !ok:
			inner = fieldTree{}
			t[name] = inner
		}
		t = inner
	}
}

// Paths returns the list from which f was made.
func (f *Fields) Paths() []string { return f.paths }

// Append appends to dst the JSON of an event with the wanted properties alone, and returns the longer slice. Objects that
// keep none of their members are left out, except the event itself. JSON that is malformed or no object is appended whole
// with an error.
func (f *Fields) Append(dst, event []byte) ([]byte, error) {
	if f == nil {
		return append(dst, event...), nil
	}
	// The event is our own JSON, which has no duplicate names to look for.
	dec := jsontext.NewDecoder(bytes.NewBuffer(event), jsontext.AllowDuplicateNames(true))
	if dec.PeekKind() != jsontext.KindBeginObject {
		return append(dst, event...), dec.SkipValue()
	}
	out, _, err := f.root.append(dst, dec)
	if err != nil {
		return append(dst, event...), err
	}
	return out, nil
}

// append copies the wanted members of the object that comes next; kept counts them.
func (t fieldTree) append(dst []byte, dec *jsontext.Decoder) (out []byte, kept int, err error) {
	if _, err = dec.ReadToken(); err != nil {
		return dst, 0, err
	}
	dst = append(dst, '{')
	var scratch [64]byte
	for dec.PeekKind() != jsontext.KindEndObject {
		quoted, err := dec.ReadValue()
		if err != nil {
			return dst, 0, err
		}
		mark := len(dst)
		if kept > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(dst, quoted...), ':')
		name, err := jsontext.AppendUnquote(scratch[:0], quoted)
		if err != nil {
			return dst, 0, err
		}
		inner, ok := t[string(name)]
		switch {
		case ok && inner == nil:
			v, err := dec.ReadValue()
			if err != nil {
				return dst, 0, err
			}
			dst = append(dst, v...)
			kept++
		case ok && dec.PeekKind() == jsontext.KindBeginObject:
			n := 0
			if dst, n, err = inner.append(dst, dec); err != nil {
				return dst, 0, err
			}
			if n == 0 {
				dst = dst[:mark]
			} else {
				kept++
			}
		default:
			dst = dst[:mark]
			if err := dec.SkipValue(); err != nil {
				return dst, 0, err
			}
		}
	}
	_, err = dec.ReadToken()
	return append(dst, '}'), kept, err
}
