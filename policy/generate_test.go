package policy

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the generated files instead of comparing them")

// schemaDoc makes a JSON schema and a field list from the structs of input.go and their comments.
type schemaDoc struct {
	structs map[string]*ast.StructType
	named   map[string]ast.Expr
	readme  *bytes.Buffer
}

func (s *schemaDoc) object(name, prefix string) map[string]any {
	props := map[string]any{}
	required := []string{}
	for _, f := range s.structs[name].Fields.List {
		if f.Tag == nil || len(f.Names) == 0 {
			continue
		}
		tag := reflect.StructTag(strings.Trim(f.Tag.Value, "`"))
		member, opt, _ := strings.Cut(tag.Get("json"), ",")
		if member == "-" || member == "" {
			continue
		}
		doc := strings.Join(strings.Fields(f.Doc.Text()), " ")
		path := prefix + member
		optional := opt == "omitempty" || tag.Get("policy") == "local"
		schema := s.schema(f.Type, path, doc, optional, tag.Get("policy") == "star")
		schema["description"] = doc
		props[member] = schema
		if !optional {
			required = append(required, member)
		}
	}
	out := map[string]any{"type": "object", "properties": props, "additionalProperties": false}
	if len(required) > 0 && prefix != "" {
		out["required"] = required
	}
	return out
}

func (s *schemaDoc) row(path, kind, doc string, optional bool) {
	if optional {
		kind += ", may be absent"
	}
	_, doc, _ = strings.Cut(doc, " ")
	doc = strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(doc, "is "), "are "), "says ")
	fmt.Fprintf(s.readme, "| `input.%s` | %s | %s |\n", path, kind, doc)
}

func (s *schemaDoc) schema(t ast.Expr, path, doc string, optional, star bool) map[string]any {
	switch x := t.(type) {
	case *ast.StarExpr:
		return s.schema(x.X, path, doc, optional, star)
	case *ast.SelectorExpr: // time.Time
		s.row(path, "string", doc, optional)
		return map[string]any{"type": "string", "format": "date-time"}
	case *ast.ArrayType:
		elem := x.Elt.(*ast.Ident).Name
		if _, ok := s.structs[elem]; ok {
			s.row(path, "list of objects", doc, optional)
			return map[string]any{"type": "array", "items": s.object(elem, path+"[].")}
		}
		s.row(path, "list of strings", doc, optional)
		return map[string]any{"type": "array", "items": map[string]any{"type": "string"}}
	case *ast.MapType:
		if x.Value.(*ast.Ident).Name == "any" {
			s.row(path, "object", doc, optional)
			return map[string]any{"type": "object", "additionalProperties": true}
		}
		s.row(path, "object of strings", doc, optional)
		return map[string]any{"type": "object", "additionalProperties": map[string]any{"type": "string"}}
	case *ast.Ident:
		if _, ok := s.structs[x.Name]; ok {
			s.row(path, "object", doc, optional)
			return s.object(x.Name, path+".")
		}
		if under, ok := s.named[x.Name]; ok {
			if star {
				return map[string]any{"anyOf": []any{map[string]any{"type": "string", "enum": []string{"*"}}, s.schema(under, path, doc, optional, false)}}
			}
			return s.schema(under, path, doc, optional, false)
		}
		kind := map[string]string{"string": "string", "bool": "boolean", "int": "integer", "int64": "integer", "Point": "string"}[x.Name]
		s.row(path, kind, doc, optional)
		return map[string]any{"type": kind}
	}
	panic(fmt.Sprintf("no schema for %T at %s", t, path))
}

func generated(t *testing.T) map[string][]byte {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "input.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	s := &schemaDoc{structs: map[string]*ast.StructType{}, named: map[string]ast.Expr{}, readme: &bytes.Buffer{}}
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range g.Specs {
			ts, ok := spec.(*ast.TypeSpec)
			if !ok {
				continue
			}
			if st, ok := ts.Type.(*ast.StructType); ok {
				s.structs[ts.Name.Name] = st
			} else {
				s.named[ts.Name.Name] = ts.Type
			}
		}
	}
	fmt.Fprint(s.readme, readmeHead)
	schema := s.object("Input", "")
	schema["$schema"] = "http://json-schema.org/draft-07/schema#"
	schema["title"] = InputSchema
	schema["description"] = "The input of every decision. Generated from policy/input.go."
	fmt.Fprint(s.readme, "\n## Decision points\n\nGenerated from `policy/points.go`. *asks* names the parties whose tenants' rules are asked; *fail* says what happens when the rules cannot be evaluated.\n\n| point | kind | fail | asks | when |\n|---|---|---|---|---|\n")
	for _, p := range Points() {
		fmt.Fprintf(s.readme, "| `%s` | %s | %s | %s | %s |\n", p.Point, p.Kind, p.Fail, p.Asks, p.Doc)
	}
	var js bytes.Buffer
	enc := json.NewEncoder(&js)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(schema); err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"../rego/schemas/input.json": js.Bytes(), "../rego/README.md": s.readme.Bytes()}
}

const readmeHead = `# The policy library and what rules can read

- ` + "`hansa/`" + ` is the library that every tenant gets: whitelist, pools, domains, agreements, bridges, content, sessions and rooms, driven by data.
- ` + "`schemas/input.json`" + ` is the JSON schema of the input; all Rego is type-checked against it, so that a misspelt member is an error.
- ` + "`packs/`" + ` holds ready-made rules that an operator copies into the policy directory; ` + "`examples/`" + ` shows whole policy directories.

` + "`opa check --strict -s rego/schemas/input.json rego/hansa`" + ` and ` + "`opa test rego/hansa`" + ` work with plain OPA.

## Members of the input

Generated from ` + "`policy/input.go`" + ` (` + "`go generate ./policy`" + `).

| member | type | meaning |
|---|---|---|
`

func TestGeneratedFiles(t *testing.T) {
	for name, want := range generated(t) {
		if *update {
			if err := os.WriteFile(name, want, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what policy/input.go and policy/points.go say; run go generate ./policy", name)
		}
	}
}
