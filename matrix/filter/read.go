package filter

import (
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
)

// object is a JSON object whose members are read by name and exact type.
type object map[string]jsontext.Value

// readRoot reads the outermost object, which checks the syntax of everything inside.
func readRoot(raw []byte) (object, error) {
	if len(raw) > MaxSize {
		return nil, matrix.InvalidParam("A filter may have at most %d bytes.", MaxSize)
	}
	v := jsontext.Value(raw)
	if !v.IsValid() {
		return nil, matrix.Errorf(400, matrix.CodeNotJSON, "The filter is not valid JSON.")
	}
	if v.Kind() != jsontext.KindBeginObject {
		return nil, matrix.BadJSON("A filter must be an object.")
	}
	return readObject(v)
}

func readObject(v jsontext.Value) (object, error) {
	o := make(object)
	if err := json.Unmarshal(v, &o); err != nil {
		return nil, matrix.BadJSON("The filter is malformed.")
	}
	return o, nil
}

func (o object) has(name string) bool { _, ok := o[name]; return ok }

func errType(name, want string) error {
	return matrix.BadJSON("%s of a filter must be %s.", name, want)
}

// object returns an inner object, and false where there is none.
func (o object) object(name string) (object, bool, error) {
	v, ok := o[name]
	if !ok {
		return nil, false, nil
	}
	if v.Kind() != jsontext.KindBeginObject {
		return nil, false, errType(name, "an object")
	}
	inner, err := readObject(v)
	return inner, err == nil, err
}

func (o object) boolean(name string) (bool, error) {
	switch v, ok := o[name]; {
	case !ok:
		return false, nil
	case v.Kind() == jsontext.KindTrue:
		return true, nil
	case v.Kind() == jsontext.KindFalse:
		return false, nil
	}
	return false, errType(name, "true or false")
}

func (o object) text(name string) (string, bool) {
	v := o[name]
	if v.Kind() != jsontext.KindString {
		return "", false
	}
	b, err := jsontext.AppendUnquote(nil, v)
	return string(b), err == nil
}

// limit returns the limit, at most MaxLimit, and 0 where there is none.
func (o object) limit() (int, error) {
	v, ok := o["limit"]
	if !ok {
		return 0, nil
	}
	digits := string(v)
	if v.Kind() != jsontext.KindNumber || strings.Trim(digits, "-0123456789") != "" {
		return 0, errType("limit", "an integer")
	}
	if digits[0] == '-' || digits == "0" {
		return 0, matrix.InvalidParam("The limit of a filter must be greater than 0.")
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > MaxLimit { // too large even for 64 bits
		return MaxLimit, nil
	}
	return int(n), nil
}

// list returns a list of strings, nil where there is none and never nil where there is one.
func (o object) list(name string) ([]string, error) {
	v, ok := o[name]
	if !ok {
		return nil, nil
	}
	var raw []jsontext.Value
	if v.Kind() != jsontext.KindBeginArray || json.Unmarshal(v, &raw) != nil {
		return nil, errType(name, "a list of strings")
	}
	if len(raw) > MaxEntries {
		return nil, matrix.InvalidParam("%s of a filter may have at most %d entries.", name, MaxEntries)
	}
	list := make([]string, 0, len(raw))
	for _, v := range raw {
		s, ok := object{name: v}.text(name)
		if !ok {
			return nil, errType(name, "a list of strings")
		}
		if len(s) > MaxEntry {
			return nil, matrix.InvalidParam("An entry of %s may have at most %d bytes.", name, MaxEntry)
		}
		list = append(list, s)
	}
	return list, nil
}

// readIDs reads a pair of lists, name and not_name, of identifiers that begin with sigil.
func readIDs(o object, name string, sigil byte, in, out *[]string) (f idFilter, err error) {
	if *in, err = o.list(name); err != nil {
		return f, err
	}
	if *out, err = o.list("not_" + name); err != nil {
		return f, err
	}
	for _, list := range [][]string{*in, *out} {
		for _, id := range list {
			if id == "" || id[0] != sigil {
				return f, matrix.InvalidParam("Entries of %s and not_%s must begin with %c.", name, name, sigil)
			}
		}
	}
	return newIDFilter(*in, *out), nil
}
