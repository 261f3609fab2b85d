package fedclient

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/go-json-experiment/json/jsontext"
)

// The limits of lists of events in one answer.
const (
	maxStateEvents = 300000
	maxStateIDs    = 600000
	maxEventSize   = 128 << 10 // an event may grow by what is not signed; larger ones are left out
	maxPage        = 1000
	maxHeld        = 768 << 20 // by all answers that are being read
	maxValue       = 2 << 20   // of one member or element, and of what the decoder reads ahead
)

var (
	errTooMany  = errors.New("fedclient: too many elements")
	errTooLarge = errors.New("fedclient: too large a value")
	errBusy     = errors.New("fedclient: too much is being read at the same time")
)

// reader reads the top-level members of an object one after the other. Duplicate keys and bad UTF-8 inside events are let through to the
// parser of events, which drops those events alone; at the top level they are errors.
//
// No single value may be larger than maxValue, so that what is held at a time stays small whatever the size of the whole.
// What all readers of a Client hold together is bounded too.
type reader struct {
	d    *jsontext.Decoder
	m    *meter
	seen map[string]bool
	held *atomic.Int64 // by all readers
	mine int64         // of it
}

func newReader(r io.Reader, held *atomic.Int64) *reader {
	m := &meter{r, maxValue}
	return &reader{held: held, d: jsontext.NewDecoder(m, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)), m: m, seen: map[string]bool{}}
}

// keep counts what is held on to.
func (r *reader) keep(n int) error {
	r.mine += int64(n)
	if r.held.Add(int64(n)) > maxHeld {
		return errBusy
	}
	return nil
}

// done says that what was read is the caller's now, or of no use.
func (r *reader) done() { r.held.Add(-r.mine) }

// meter bounds what is read until it is set again.
type meter struct {
	io.Reader
	left int
}

// Read reads within the bound.
func (m *meter) Read(p []byte) (int, error) {
	if m.left <= 0 {
		return 0, errTooLarge
	}
	n, err := m.Reader.Read(p)
	m.left -= n
	return n, err
}

// object calls member for each member; member must read exactly the value, or return false to have it skipped.
func (r *reader) object(member func(name string) (bool, error)) error {
	if err := r.expect('{'); err != nil {
		return err
	}
	for r.d.PeekKind() == '"' {
		t, err := r.d.ReadToken()
		if err != nil {
			return err
		}
		name := t.String()
		r.m.left = maxValue
		if r.seen[name] {
			return fmt.Errorf("fedclient: member %.80q occurs twice", name)
		}
		if len(r.seen) == 100 {
			return errTooMany
		}
		r.seen[name] = true
		read, err := member(name)
		if err == nil && !read {
			err = r.d.SkipValue()
		}
		if err != nil {
			return err
		}
	}
	if err := r.expect('}'); err != nil {
		return err
	}
	if _, err := r.d.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.New("fedclient: something follows the object")
	}
	return nil
}

func (r *reader) expect(kind jsontext.Kind) error {
	t, err := r.d.ReadToken()
	if err != nil {
		return err
	}
	if t.Kind() != kind {
		return fmt.Errorf("fedclient: %v where %v belongs", t.Kind(), kind)
	}
	return nil
}

// list calls element for each element of an array, at most so many. null stands for an empty one.
func (r *reader) list(most int, element func() error) error {
	if r.d.PeekKind() == 'n' {
		return r.d.SkipValue()
	}
	if err := r.expect('['); err != nil {
		return err
	}
	for n := 0; ; n++ {
		switch r.d.PeekKind() {
		case ']':
			return r.expect(']')
		case 0:
			return r.expect(']') // for the error
		}
		if n == most {
			return errTooMany
		}
		r.m.left = maxValue
		if err := element(); err != nil {
			return err
		}
	}
}

// events reads an array of events. What is no object, or too large for an event, is left out.
func (r *reader) events(most int, out *[][]byte) error {
	return r.list(most, func() error {
		v, err := r.d.ReadValue()
		if err == nil && v.Kind() == '{' && len(v) <= maxEventSize {
			*out = append(*out, append([]byte(nil), v...))
			err = r.keep(len(v) + 64)
		}
		return err
	})
}

// strings reads an array of strings; anything else in it is an error.
func (r *reader) strings(most int, each func(string)) error {
	return r.list(most, func() error {
		t, err := r.d.ReadToken()
		if err != nil {
			return err
		}
		if t.Kind() != '"' {
			return errors.New("fedclient: not a string")
		}
		text := t.String()
		each(text)
		return r.keep(len(text) + 16)
	})
}

// value reads one value as it is.
func (r *reader) value(out *[]byte) error {
	v, err := r.d.ReadValue()
	if err == nil && v.Kind() != 'n' {
		*out = append([]byte(nil), v...)
	}
	return err
}
