package config

import (
	_ "embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

//go:embed config.go
var source string

// Sample is hansa.example.yaml: every key with its comment, its default, and two tenants.
func Sample() ([]byte, error) {
	return New("acme.example", "globex.example").YAML()
}

// YAML writes c as a file that Load reads: every key, with the comment of its field above it where it stands first.
func (c *Config) YAML() ([]byte, error) {
	comments, err := fieldComments()
	if err != nil {
		return nil, err
	}
	w := &writer{comments: comments, done: map[string]bool{}}
	w.line(0, "# Configuration of Hansa. Keys that are left out have the values that stand here; unknown keys are errors. Every key may")
	w.line(0, "# come from the environment instead: listen.client is HANSA_LISTEN_CLIENT. Relative paths start at this file.")
	if err := w.fields(reflect.ValueOf(c).Elem(), 0, ""); err != nil {
		return nil, err
	}
	return []byte(w.b.String()), nil
}

// fieldComments reads the comments of the structs in config.go, as "Struct.Field".
func fieldComments() (map[string]string, error) {
	f, err := parser.ParseFile(token.NewFileSet(), "config.go", source, parser.ParseComments)
	if err != nil {
		return nil, fmt.Errorf("read comments of the configuration: %w", err)
	}
	comments := map[string]string{}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if s, ok := spec.Type.(*ast.StructType); ok {
			for _, field := range s.Fields.List {
				for _, name := range field.Names {
					comments[spec.Name.Name+"."+name.Name] = strings.TrimSpace(field.Doc.Text())
				}
			}
		}
		return false
	})
	return comments, nil
}

type writer struct {
	b        strings.Builder
	comments map[string]string
	done     map[string]bool // comments that were written: the second tenant needs none
}

func (w *writer) line(indent int, s string) {
	w.b.WriteString(strings.Repeat("  ", indent))
	w.b.WriteString(s)
	w.b.WriteByte('\n')
}

// fields writes the keys of a struct; first is what stands before the first of them ("- " in a list).
func (w *writer) fields(v reflect.Value, indent int, first string) error {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		key := f.Tag.Get("yaml")
		if key == "" {
			continue
		}
		if indent == 0 {
			w.b.WriteByte('\n')
		}
		name := v.Type().Name() + "." + f.Name
		if !w.done[name] {
			w.done[name] = true
			for l := range strings.Lines(w.comments[name]) {
				w.line(indent, "# "+strings.TrimSpace(l))
			}
		}
		at, lead := indent, first
		if first != "" {
			at, first = indent-1, ""
		}
		if err := w.value(lead+key, v.Field(i), at); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) value(key string, v reflect.Value, indent int) error {
	switch {
	case v.Kind() == reflect.Struct:
		w.line(indent, key+":")
		return w.fields(v, indent+1, "")
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct && v.Len() > 0:
		w.line(indent, key+":")
		for i := range v.Len() {
			if err := w.fields(v.Index(i), indent+2, "- "); err != nil {
				return err
			}
		}
		return nil
	case v.Kind() == reflect.Slice:
		items := make([]string, v.Len())
		for i := range items {
			s, err := scalarText(v.Index(i))
			if err != nil {
				return err
			}
			items[i] = s
		}
		w.line(indent, key+": ["+strings.Join(items, ", ")+"]")
		return nil
	}
	s, err := scalarText(v)
	if err != nil {
		return err
	}
	w.line(indent, key+": "+s)
	return nil
}

// scalarText writes one value as YAML, quoted where it must be.
func scalarText(v reflect.Value) (string, error) {
	if v.Kind() == reflect.Bool {
		return strconv.FormatBool(v.Bool()), nil
	}
	text := fmt.Sprint(v.Interface())
	if text == "" {
		return `""`, nil
	}
	if v.Kind() != reflect.String {
		return text, nil // sizes and durations need no quotes
	}
	if strings.ContainsAny(text, ",[]{}#&*!|>'\"%@`\n") {
		return strconv.Quote(text), nil
	}
	b, err := yaml.Marshal(text)
	if err != nil {
		return "", fmt.Errorf("write %q as YAML: %w", text, err)
	}
	return strings.TrimSpace(string(b)), nil
}
