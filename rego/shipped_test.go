package rego_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hansa/policy"
)

// Every example and every pack is a policy directory that the engine takes as it is, and whose own tests pass.
func TestShipped(t *testing.T) {
	t.Parallel()
	var dirs []string
	for _, pattern := range []string{"examples/*", "packs/*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, found...)
	}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // a README beside the folders
		}
		t.Run(dir, func(t *testing.T) {
			t.Parallel()
			check(t, []string{dir}, tenantsOf(entries))
		})
	}
}

// The packs can be used together.
func TestShipped_AllPacks(t *testing.T) {
	t.Parallel()
	found, err := filepath.Glob("packs/*/operator")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, f := range found {
		if err := copyInto(filepath.Join(dir, "operator"), f); err != nil {
			t.Fatal(err)
		}
	}
	check(t, []string{dir}, []string{"acme.example"})
}

func tenantsOf(entries []os.DirEntry) []string {
	var out []string
	for _, e := range entries {
		if e.IsDir() && e.Name() != "operator" {
			out = append(out, e.Name())
		}
	}
	if len(out) == 0 {
		return []string{"acme.example"}
	}
	return out
}

func check(t *testing.T, bundles, tenants []string) {
	t.Helper()
	for _, p := range policy.Check(t.Context(), bundles, tenants) {
		t.Errorf("check: %v", p)
	}
	results, err := policy.Test(t.Context(), bundles, tenants, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(results) == 0 {
		t.Error("it has no tests")
	}
	for _, r := range results {
		if !r.Pass {
			t.Errorf("%s:%d: %s %s", r.File, r.Line, r.Name, r.Message)
		}
	}
}

// copyInto merges the tree of from into the tree to.
func copyInto(to, from string) error {
	return filepath.WalkDir(from, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		at := filepath.Join(to, strings.TrimPrefix(name, from))
		if d.IsDir() {
			return os.MkdirAll(at, 0o755)
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(at, text, 0o644)
	})
}
