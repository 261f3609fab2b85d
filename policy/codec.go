package policy

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

// codec knows the members of Input and everything it points to. It turns values into Rego terms, and it reads the
// value at a path in a form that can be part of a memo key. It is built once and only read afterwards.
type codec struct {
	plans map[reflect.Type]*plan
	time  reflect.Type
	party reflect.Type
}

type plan struct {
	fields []fieldPlan
	byName map[string]int
}

type fieldPlan struct {
	name      string
	key       *ast.Term
	index     int
	omitempty bool
	localOnly bool // absent unless the struct's Local is true
	star      bool // written "*" when it is the one star
}

func newCodec() *codec {
	c := &codec{plans: map[reflect.Type]*plan{}, time: reflect.TypeFor[time.Time](), party: reflect.TypeFor[Party]()}
	c.learn(reflect.TypeFor[Input]())
	return c
}

func (c *codec) learn(t reflect.Type) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		c.learn(t.Elem())
		return
	case reflect.Struct:
	default:
		return
	}
	if t == c.time || c.plans[t] != nil {
		return
	}
	p := &plan{byName: map[string]int{}}
	c.plans[t] = p
	for i := range t.NumField() {
		f := t.Field(i)
		name, opt, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" || name == "" {
			continue
		}
		tag := f.Tag.Get("policy")
		p.byName[name] = len(p.fields)
		p.fields = append(p.fields, fieldPlan{name: name, key: ast.StringTerm(name), index: i, omitempty: opt == "omitempty",
			localOnly: tag == "local", star: tag == "star"})
		c.learn(f.Type)
	}
}

// starred is implemented by the lists that have a short form.
type starred interface{ all() bool }

func (c *codec) absent(f *fieldPlan, parent, v reflect.Value) bool {
	if f.localOnly {
		return !parent.FieldByName("Local").Bool()
	}
	return f.omitempty && v.IsZero()
}

// term converts a value. A party's term is made once and kept with it.
func (c *codec) term(v reflect.Value) *ast.Term {
	switch v.Kind() {
	case reflect.String:
		return ast.StringTerm(v.String())
	case reflect.Bool:
		return ast.InternedTerm(v.Bool())
	case reflect.Int, reflect.Int64:
		return ast.NumberTerm(jsonNumber(v.Int()))
	case reflect.Pointer:
		if v.IsNil() {
			return ast.NullTerm()
		}
		if v.Type().Elem() == c.party {
			return c.partyTerm(v.Interface().(*Party))
		}
		return c.term(v.Elem())
	case reflect.Slice:
		terms := make([]*ast.Term, v.Len())
		for i := range terms {
			terms[i] = c.term(v.Index(i))
		}
		return ast.ArrayTerm(terms...)
	case reflect.Map:
		if m, ok := v.Interface().(map[string]any); ok {
			return anyTerm(m)
		}
		pairs := make([][2]*ast.Term, 0, v.Len())
		for it := v.MapRange(); it.Next(); {
			pairs = append(pairs, [2]*ast.Term{c.term(it.Key()), c.term(it.Value())})
		}
		return ast.ObjectTerm(pairs...)
	case reflect.Struct:
		if v.Type() == c.time {
			return ast.StringTerm(v.Interface().(time.Time).UTC().Format(time.RFC3339))
		}
		return c.structTerm(v, nil)
	default:
		return anyTerm(v.Interface())
	}
}

// want is the members of a struct that rules read, each with what they read of it; nil is all of it.
type want map[string]want

// wanted makes a want of the paths whose values are read and the paths of which only the presence is.
func wanted(values, presence [][]string) want {
	w := want{}
	for _, p := range presence {
		w.add(p, want{})
	}
	for _, p := range values {
		if len(p) == 0 {
			return nil
		}
		w.add(p, nil)
	}
	return w
}

func (w want) add(path []string, leaf want) {
	for i, name := range path {
		next, known := w[name]
		switch {
		case known && next == nil:
			return
		case i == len(path)-1 && (leaf == nil || !known):
			w[name] = leaf
		case i < len(path)-1 && !known:
			next = want{}
			w[name] = next
		}
		w = next
	}
}

// structTerm converts a struct: the members in only, all where that is nil.
func (c *codec) structTerm(v reflect.Value, only want) *ast.Term {
	p := c.plans[v.Type()]
	pairs := make([][2]*ast.Term, 0, len(p.fields))
	for i := range p.fields {
		f := &p.fields[i]
		part, wants := only[f.name]
		if only != nil && !wants {
			continue
		}
		fv := v.Field(f.index)
		if c.absent(f, v, fv) {
			continue
		}
		t := (*ast.Term)(nil)
		if f.star && fv.Interface().(starred).all() {
			t = ast.StringTerm("*")
		} else {
			t = c.partTerm(fv, part)
		}
		pairs = append(pairs, [2]*ast.Term{f.key, t})
	}
	return ast.ObjectTerm(pairs...)
}

// partTerm converts a member of which only a part is read. A party is converted whole: its term is kept.
func (c *codec) partTerm(v reflect.Value, only want) *ast.Term {
	if only != nil && v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
		if v.Type() == c.party {
			return c.partyTerm(v.Addr().Interface().(*Party))
		}
	}
	if only != nil && v.Kind() == reflect.Struct && v.Type() != c.time {
		return c.structTerm(v, only)
	}
	return c.term(v)
}

func (c *codec) partyTerm(p *Party) *ast.Term {
	if t := p.term.Load(); t != nil {
		return t
	}
	t := c.structTerm(reflect.ValueOf(p).Elem(), nil)
	p.term.Store(t)
	return t
}

func anyTerm(x any) *ast.Term {
	v, err := ast.InterfaceToValue(x)
	if err != nil {
		return ast.NullTerm()
	}
	return ast.NewTerm(v)
}

// access reads the value at one path of the input. The zero access reads all of it.
type access struct {
	path  []string
	steps []int    // fields of structs, from Input on
	rest  []string // keys of maps
	local bool     // the last step is absent unless the party is local
}

// compile resolves a path; a path that leads beyond the members of Input is cut where it stops to be known.
func (c *codec) compile(root reflect.Type, path []string) (access, error) {
	a := access{path: path}
	t := root
	for i, name := range path {
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		switch {
		case t.Kind() == reflect.Struct && t != c.time:
			p := c.plans[t]
			n, ok := p.byName[name]
			if !ok {
				return a, fmt.Errorf("policy: input has no member %s", strings.Join(path[:i+1], "."))
			}
			a.steps = append(a.steps, p.fields[n].index)
			a.local = p.fields[n].localOnly
			t = t.Field(p.fields[n].index).Type
		case t.Kind() == reflect.Map && len(a.rest) == 0:
			a.rest = append(a.rest, name)
			t = t.Elem()
		default:
			return a, nil
		}
	}
	return a, nil
}

const (
	tagAbsent byte = iota
	tagString
	tagFalse
	tagTrue
	tagInt
	tagList
	tagMap
	tagStruct
	tagPresent
	tagOther
)

// appendKey appends the value at the path to a memo key: tagged and with lengths, so that no two different inputs make
// the same bytes.
func (c *codec) appendKey(buf []byte, root reflect.Value, a *access, presence bool) []byte {
	v := root
	for _, i := range a.steps {
		for v.Kind() == reflect.Pointer {
			if v.IsNil() {
				return append(buf, tagAbsent)
			}
			v = v.Elem()
		}
		parent := v
		v = v.Field(i)
		if a.local && v.Kind() == reflect.Bool && parent.Type() == c.party && !parent.FieldByName("Local").Bool() {
			return append(buf, tagAbsent)
		}
	}
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return append(buf, tagAbsent)
		}
		v = v.Elem()
	}
	if len(a.rest) > 0 {
		m := v.MapIndex(reflect.ValueOf(a.rest[0]))
		if !m.IsValid() {
			return append(buf, tagAbsent)
		}
		v = m
	}
	if presence {
		return append(buf, tagPresent)
	}
	return c.appendValue(buf, v)
}

func appendString(buf []byte, s string) []byte {
	buf = binary.AppendUvarint(append(buf, tagString), uint64(len(s)))
	return append(buf, s...)
}

func (c *codec) appendValue(buf []byte, v reflect.Value) []byte {
	switch v.Kind() {
	case reflect.String:
		return appendString(buf, v.String())
	case reflect.Bool:
		if v.Bool() {
			return append(buf, tagTrue)
		}
		return append(buf, tagFalse)
	case reflect.Int, reflect.Int64:
		return binary.AppendVarint(append(buf, tagInt), v.Int())
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return append(buf, tagAbsent)
		}
		return c.appendValue(buf, v.Elem())
	case reflect.Slice:
		n := v.Len()
		buf = binary.AppendUvarint(append(buf, tagList), uint64(n))
		for i := range n {
			buf = c.appendValue(buf, v.Index(i))
		}
		return buf
	case reflect.Map:
		return c.appendMap(buf, v)
	case reflect.Struct:
		if v.Type() == c.time {
			return binary.AppendVarint(append(buf, tagInt), v.Interface().(time.Time).Unix())
		}
		buf = append(buf, tagStruct)
		p := c.plans[v.Type()]
		for i := range p.fields {
			fv := v.Field(p.fields[i].index)
			if c.absent(&p.fields[i], v, fv) {
				buf = append(buf, tagAbsent)
				continue
			}
			buf = c.appendValue(buf, fv)
		}
		return buf
	default:
		return fmt.Appendf(append(buf, tagOther), "%T:%v;", v.Interface(), v.Interface())
	}
}

func (c *codec) appendMap(buf []byte, v reflect.Value) []byte {
	keys := make([]string, 0, v.Len())
	for it := v.MapRange(); it.Next(); {
		keys = append(keys, it.Key().String())
	}
	slices.Sort(keys)
	buf = binary.AppendUvarint(append(buf, tagMap), uint64(len(keys)))
	for _, k := range keys {
		buf = appendString(buf, k)
		buf = c.appendValue(buf, v.MapIndex(reflect.ValueOf(k)))
	}
	return buf
}

func jsonNumber(n int64) json.Number { return json.Number(strconv.FormatInt(n, 10)) }
