package rego_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"hansa/policy"
)

var snippet = regexp.MustCompile("(?ms)^( *)```(?:yaml|rego)\n *# policy/([^\n]+)\n(.*?)^ *```")

// Every snippet of the documents that names its file is one that the engine takes.
func TestDocs_SnippetsAreTaken(t *testing.T) {
	t.Parallel()
	packs, err := filepath.Glob("packs/*/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range append(packs, "../docs/policies.md", "../docs/bridges.md", "../README.md") {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range snippet.FindAllStringSubmatch(string(text), -1) {
			indent, name, body := m[1], m[2], m[3]
			if strings.HasSuffix(name, "_test.rego") {
				continue // it needs the file that it tests
			}
			t.Run(filepath.Base(doc)+"/"+name, func(t *testing.T) {
				t.Parallel()
				at := filepath.Join(t.TempDir(), filepath.FromSlash(name))
				if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
					t.Fatal(err)
				}
				body = strings.ReplaceAll("\n"+body, "\n"+indent, "\n")
				if err := os.WriteFile(at, []byte(body), 0o644); err != nil {
					t.Fatal(err)
				}
				dir := filepath.Dir(filepath.Dir(at))
				for _, p := range policy.Check(t.Context(), []string{dir}, []string{"acme.example"}) {
					if !p.Warning {
						t.Errorf("%s: %s: %v", doc, name, p)
					}
				}
			})
		}
	}
}
