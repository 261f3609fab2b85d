package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"hansa/matrix"
)

// envPrefix begins the name of every variable that is read.
const envPrefix = "HANSA_"

// input is what was given for one Config: the file and the environment. It remembers where each key was set, so that
// every mistake can be said with its place.
type input struct {
	path   string
	root   *node
	env    map[string]string
	origin map[string]string // key -> "file:line" or "variable"
	errs   []error
}

func newInput(path string) *input {
	return &input{path: path, env: map[string]string{}, origin: map[string]string{}}
}

func (in *input) readYAML(text []byte) error {
	root, err := parseTree(text)
	if le, ok := err.(*lineError); ok {
		return fmt.Errorf("%s:%d: %s", in.path, le.line, le.msg)
	} else if err != nil {
		return fmt.Errorf("%s: %w", in.path, err)
	}
	in.root = root
	return nil
}

// readEnviron keeps the variables with our prefix.
func (in *input) readEnviron(environ []string) {
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok && strings.HasPrefix(name, envPrefix) {
			in.env[name] = value
		}
	}
}

func envName(key string) string {
	return envPrefix + strings.ToUpper(strings.NewReplacer(".", "_", "[", "_", "]", "").Replace(key))
}

// scalar returns a top-level key before anything else is read, or def.
func (in *input) scalar(key, def string) string {
	if v, ok := in.env[envName(key)]; ok && v != "" {
		return v
	}
	if n := in.root.get(key); n != nil && n.kind == kindScalar && n.text != "" {
		return n.text
	}
	return def
}

func (in *input) fail(key, format string, args ...any) {
	at := in.origin[key]
	if at == "" {
		at = in.path
	}
	in.errs = append(in.errs, fmt.Errorf("%s: %s: %s", at, key, fmt.Sprintf(format, args...)))
}

// fill sets the fields of c from the file and the environment, and reports what fits no field. A variable that begins like
// a section but names no key in it is a mistake; others, such as the HANSA_PORT that Kubernetes sets for a service of that
// name, are not meant for us.
func (in *input) fill(c *Config) {
	in.fillStruct("", reflect.ValueOf(c).Elem(), in.root)
	for name := range in.env {
		for _, f := range sections(reflect.TypeFor[Config]()) {
			if strings.HasPrefix(name, envName(f)+"_") {
				in.errs = append(in.errs, fmt.Errorf("environment: %s names no key", name))
			}
		}
	}
}

// sections lists the keys that have keys below them.
func sections(t reflect.Type) []string {
	var out []string
	for i := range t.NumField() {
		f := t.Field(i)
		if k := f.Type.Kind(); k == reflect.Struct || k == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct {
			out = append(out, f.Tag.Get("yaml"))
		}
	}
	return out
}

func (in *input) fillStruct(prefix string, v reflect.Value, n *node) {
	if n != nil && n.kind != kindMapping && n.kind != kindNull {
		in.fail(strings.TrimSuffix(prefix, "."), "needs a mapping of keys, not %s", n.kind)
		n = nil
	}
	known := map[string]bool{}
	for i := range v.NumField() {
		key := v.Type().Field(i).Tag.Get("yaml")
		if key == "" {
			continue
		}
		known[key] = true
		child := n.get(key)
		path := prefix + key
		if child != nil {
			in.origin[path] = fmt.Sprintf("%s:%d", in.path, child.line)
		}
		in.fillValue(path, v.Field(i), child)
	}
	if n == nil {
		return
	}
	for _, e := range n.entries {
		if !known[e.key] {
			in.origin[prefix+e.key] = fmt.Sprintf("%s:%d", in.path, e.line)
			in.fail(prefix+e.key, "unknown key%s", suggest(e.key, known))
		}
	}
}

func (in *input) fillValue(path string, v reflect.Value, n *node) {
	switch {
	case v.Kind() == reflect.Struct:
		in.fillStruct(path+".", v, n)
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
		in.fillStructs(path, v, n)
	case v.Kind() == reflect.Slice:
		in.fillList(path, v, n)
	default:
		text, ok := in.take(path)
		if !ok {
			if n == nil || n.kind == kindNull {
				return
			}
			if n.kind != kindScalar {
				in.fail(path, "needs a plain value, not %s", n.kind)
				return
			}
			text = n.text
		}
		if err := setScalar(v, text); err != nil {
			in.fail(path, "%v", err)
		}
	}
}

// take returns the variable for a key and forgets it, so that what is left at the end was meant for nothing.
func (in *input) take(path string) (string, bool) {
	name := envName(path)
	text, ok := in.env[name]
	if ok {
		delete(in.env, name)
		in.origin[path] = "environment: " + name
	}
	return text, ok
}

// fillStructs fills a list of mappings; the environment may change entries of the file and add entries behind them.
func (in *input) fillStructs(path string, v reflect.Value, n *node) {
	var items []*node
	if n != nil && n.kind != kindNull {
		if n.kind != kindList {
			in.fail(path, "needs a list, not %s", n.kind)
			return
		}
		items = n.list
	}
	for i := 0; i < len(items) || in.hasEnv(fmt.Sprintf("%s[%d].", path, i)); i++ {
		var item *node
		at := fmt.Sprintf("%s[%d]", path, i)
		if i < len(items) {
			item = items[i]
			in.origin[at] = fmt.Sprintf("%s:%d", in.path, item.line)
		}
		e := reflect.New(v.Type().Elem()).Elem()
		in.fillStruct(at+".", e, item)
		v.Set(reflect.Append(v, e))
	}
}

func (in *input) hasEnv(path string) bool {
	for name := range in.env {
		if strings.HasPrefix(name, envName(path)) {
			return true
		}
	}
	return false
}

// fillList fills a list of plain values; in the environment they are separated by commas.
func (in *input) fillList(path string, v reflect.Value, n *node) {
	if text, ok := in.take(path); ok {
		list := []string{}
		for _, s := range strings.Split(text, ",") {
			if s = strings.TrimSpace(s); s != "" {
				list = append(list, s)
			}
		}
		v.Set(reflect.ValueOf(list))
		return
	}
	if n == nil || n.kind == kindNull {
		return
	}
	if n.kind != kindList {
		in.fail(path, "needs a list, not %s", n.kind)
		return
	}
	list := []string{}
	for i, item := range n.list {
		at := fmt.Sprintf("%s[%d]", path, i)
		in.origin[at] = fmt.Sprintf("%s:%d", in.path, item.line)
		if item.kind != kindScalar {
			in.fail(at, "needs a plain value, not %s", item.kind)
			continue
		}
		list = append(list, item.text)
	}
	v.Set(reflect.ValueOf(list))
}

func setScalar(v reflect.Value, text string) error {
	var parsed any
	var err error
	switch v.Interface().(type) {
	case Size:
		parsed, err = ParseSize(text)
	case Duration:
		parsed, err = ParseDuration(text)
	case matrix.ServerName:
		parsed, err = matrix.ParseServerName(strings.ToLower(text)) // the name of a host, which has no case
	case Registration:
		parsed, err = parseRegistration(text)
	case bool:
		if text != "true" && text != "false" {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		parsed, err = strconv.ParseBool(text)
	case string:
		parsed = text
	default:
		err = fmt.Errorf("values of type %s cannot be configured", v.Type())
	}
	if err == nil {
		v.Set(reflect.ValueOf(parsed))
	}
	return err
}

func parseRegistration(text string) (Registration, error) {
	switch r := Registration(text); r {
	case RegistrationClosed, RegistrationToken, RegistrationOpen:
		return r, nil
	}
	return "", fmt.Errorf("%q is not one of closed, token, open", text)
}

// suggest names the known key that differs least from a mistyped one.
func suggest(key string, known map[string]bool) string {
	best, least := "", 3
	for k := range known {
		if d := distance(key, k); d < least || d == least && best != "" && k < best {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", best)
}

// distance is the number of single-byte edits between two short keys.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost = 1 + min(diag, row[j], row[j+1])
			}
			diag, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
