package hansa_test

import (
	"bufio"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const dependencies = "docs/decisions/0001-dependencies.md"

var (
	mdLink    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	mdHeading = regexp.MustCompile(`^#{1,6} +(.*?)\s*$`)
	mdCode    = regexp.MustCompile("`([^`]+)`")
	slugDrop  = regexp.MustCompile(`[^\p{L}\p{N}\- _]`)
	inTree    = regexp.MustCompile(`^[a-z.][a-zA-Z0-9_.-]*(?:/[a-zA-Z0-9_.-]+)*(?:/|\.go|\.md|\.sql|\.rego|\.yaml|\.txt|\.sh)$`)
)

// documents returns the Markdown files of the tree and their lines, code blocks left out.
func documents(t *testing.T) map[string][]string {
	t.Helper()
	docs := map[string][]string{}
	walk(t, func(name string) {
		if strings.HasSuffix(name, ".md") {
			docs[name] = proseLines(t, name)
		}
	})
	return docs
}

func proseLines(t *testing.T, name string) []string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	fenced := false
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			line = ""
		}
		if fenced {
			line = ""
		}
		lines = append(lines, strings.TrimRight(line, "\n"))
	}
	return lines
}

func headings(lines []string) []string {
	var out []string
	for _, l := range lines {
		if m := mdHeading.FindStringSubmatch(l); m != nil {
			s := slugDrop.ReplaceAllString(strings.ToLower(m[1]), "")
			out = append(out, strings.ReplaceAll(s, " ", "-"))
		}
	}
	return out
}

func TestDocs_LinksResolve(t *testing.T) {
	t.Parallel()
	docs := documents(t)
	for name, lines := range docs {
		for i, line := range lines {
			for _, m := range mdLink.FindAllStringSubmatch(line, -1) {
				target, anchor, _ := strings.Cut(m[1], "#")
				if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
					continue
				}
				file := name
				if target != "" {
					file = path.Join(path.Dir(name), target)
				}
				if _, err := os.Stat(file); err != nil {
					t.Errorf("%s:%d: %s leads nowhere", name, i+1, m[1])
					continue
				}
				if anchor != "" && !slices.Contains(headings(docs[file]), anchor) {
					t.Errorf("%s:%d: %s has no heading #%s", name, i+1, file, anchor)
				}
			}
		}
	}
}

// Paths of this repository in backquotes, in the two documents that lead through it, must exist.
func TestDocs_PathsExist(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"README.md", "docs/architecture.md"} {
		for i, line := range proseLines(t, name) {
			for _, m := range mdCode.FindAllStringSubmatch(line, -1) {
				if !inTree.MatchString(m[1]) {
					continue
				}
				if _, err := os.Stat(m[1]); err != nil {
					t.Errorf("%s:%d: there is no %s", name, i+1, m[1])
				}
			}
		}
	}
}

func TestReadme_IsShort(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n > 150 {
		t.Errorf("README.md has %d lines, at most 150 are read", n)
	}
}

// required returns the modules that go.mod names, and which of them are tools.
func required(t *testing.T) (modules, tools []string) {
	t.Helper()
	f, err := os.Open("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := ""
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		switch {
		case len(fields) == 0:
		case fields[0] == ")":
			block = ""
		case len(fields) == 2 && fields[1] == "(":
			block = fields[0]
		case block == "require" && len(fields) >= 2:
			modules = append(modules, fields[0])
		case block == "tool":
			tools = append(tools, fields[0])
		case fields[0] == "require" && len(fields) >= 3:
			modules = append(modules, fields[1])
		case fields[0] == "tool" && len(fields) == 2:
			tools = append(tools, fields[1])
		}
	}
	return modules, tools
}

// moduleOf returns the module that holds a package, the longest match.
func moduleOf(pkg string, modules []string) string {
	best := ""
	for _, m := range modules {
		if (pkg == m || strings.HasPrefix(pkg, m+"/")) && len(m) > len(best) {
			best = m
		}
	}
	return best
}

func TestDependencies_AreDecided(t *testing.T) {
	t.Parallel()
	modules, tools := required(t)
	used := map[string]string{}
	for _, f := range sources(t) {
		for _, imp := range f.imports() {
			first, _, _ := strings.Cut(imp, "/")
			if !strings.Contains(first, ".") {
				continue // the standard library, or this module
			}
			m := moduleOf(imp, modules)
			if m == "" {
				t.Errorf("%s: go.mod has no module for %s", f.path, imp)
			}
			used[m] = f.path
		}
	}
	for _, tool := range tools {
		used[moduleOf(tool, modules)] = "go.mod"
	}
	var decided []string
	for _, line := range proseLines(t, dependencies) {
		if m := mdHeading.FindStringSubmatch(line); m != nil && strings.HasPrefix(line, "## ") {
			decided = append(decided, m[1])
		}
	}
	for m, file := range used {
		if !slices.Contains(decided, m) {
			t.Errorf("%s uses %s, which has no paragraph in %s", file, m, dependencies)
		}
	}
	for _, m := range decided {
		if used[m] == "" {
			t.Errorf("%s speaks of %s, which nothing uses", dependencies, m)
		}
	}
}
