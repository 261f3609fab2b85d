package hansa_test

import (
	"bytes"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/format"
	"github.com/open-policy-agent/opa/v1/loader"
)

const library = "rego/hansa"

// regoSets groups the Rego of the tree by what is loaded together: the library, and each other folder with the library.
func regoSets(t *testing.T) map[string][]string {
	t.Helper()
	sets := map[string][]string{}
	walk(t, func(name string) {
		if !strings.HasSuffix(name, ".rego") {
			return
		}
		set := path.Dir(name)
		if strings.HasPrefix(name, library+"/") {
			set = library
		} else if parts := strings.SplitN(name, "/", 4); len(parts) == 4 && (parts[1] == "examples" || parts[1] == "packs") {
			set = path.Join(parts[:3]...) // a folder of rego/examples or rego/packs with all below it
		}
		sets[set] = append(sets[set], name)
	})
	if len(sets[library]) == 0 {
		t.Fatalf("there is no Rego in %s", library)
	}
	return sets
}

func TestRego_IsFormatted(t *testing.T) {
	t.Parallel()
	for _, files := range regoSets(t) {
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			want, err := format.SourceWithOpts(name, text, format.Opts{RegoVersion: ast.RegoV1})
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if !bytes.Equal(text, want) {
				t.Errorf("%s is not formatted: run opa fmt -w on it", name)
			}
		}
	}
}

// What `opa check --strict --schema rego/schemas` would say.
func TestRego_CompilesStrictly(t *testing.T) {
	t.Parallel()
	schemas, err := loader.Schemas("rego/schemas")
	if err != nil {
		t.Fatal(err)
	}
	sets := regoSets(t)
	for set, files := range sets {
		modules := map[string]*ast.Module{}
		if set != library {
			files = append(files, sets[library]...)
		}
		for _, name := range files {
			f, err := loader.RegoWithOpts(name, ast.ParserOptions{ProcessAnnotation: true, RegoVersion: ast.RegoV1})
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			modules[name] = f.Parsed
		}
		compiler := ast.NewCompiler().WithStrict(true).WithSchemas(schemas).WithUseTypeCheckAnnotations(true).WithEnablePrintStatements(true)
		if compiler.Compile(modules); compiler.Failed() {
			t.Errorf("%s: %v", set, compiler.Errors)
		}
	}
}
