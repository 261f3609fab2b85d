package hansa_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// specIndex is the list of the sections of the specification that matter here and what we do about each.
const specIndex = "matrix/spec.txt"

// updateSpec adds lines to specIndex for links that it lacks, and brings the files named there up to date.
var updateSpec = flag.Bool("update-spec", false, "add missing links to "+specIndex)

// specLink is `// spec: <document>#<anchor>` on a line of its own; a room version may be linked as a whole.
var specLink = regexp.MustCompile(`^// spec: ((?:client-server-api|server-server-api|appendices|application-service-api|push-gateway-api|identity-service-api)#[a-z0-9._-]+|rooms/v(?:[1-9]|1[0-2])(?:#[a-z0-9._-]+)?)$`)

// links returns the files that link each section.
func links(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for _, f := range sources(t) {
		for _, g := range f.ast.Comments {
			for _, c := range g.List {
				if !strings.HasPrefix(c.Text, "// spec:") {
					continue
				}
				m := specLink.FindStringSubmatch(c.Text)
				if m == nil {
					t.Errorf("%s: %q is no link: write // spec: <document>#<anchor>", f.at(c), c.Text)
					continue
				}
				if !slices.Contains(out[m[1]], f.path) {
					out[m[1]] = append(out[m[1]], f.path)
				}
			}
		}
	}
	return out
}

// specLine is one line of the index: section, yes|partial|no, and the files or, for no, the reason.
type specLine struct {
	status string
	files  []string
}

// readIndex returns the head of the index (comments and the version) and its lines.
func readIndex(t *testing.T) (head []string, index map[string]specLine) {
	t.Helper()
	text, err := os.ReadFile(specIndex)
	if err != nil {
		t.Fatal(err)
	}
	index = map[string]specLine{}
	for i, line := range strings.Split(strings.TrimRight(string(text), "\n"), "\n") {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] == "#" || f[0] == "version" {
			head = append(head, line)
			continue
		}
		if len(f) < 2 || !slices.Contains([]string{"yes", "partial", "no"}, f[1]) {
			t.Errorf("%s:%d: want: section yes|partial|no files", specIndex, i+1)
			continue
		}
		if _, twice := index[f[0]]; twice {
			t.Errorf("%s:%d: %s is there twice", specIndex, i+1, f[0])
		}
		index[f[0]] = specLine{status: f[1], files: f[2:]}
	}
	return head, index
}

func TestSpecLinks_MatchTheIndex(t *testing.T) {
	t.Parallel()
	linked := links(t)
	head, index := readIndex(t)
	if *updateSpec {
		writeIndex(t, head, index, linked)
		return
	}
	for section, files := range linked {
		line, ok := index[section]
		switch {
		case !ok:
			t.Errorf("%s: %s has no line in %s (go test . -run SpecLinks -update-spec adds one)", files[0], section, specIndex)
		case line.status == "no":
			t.Errorf("%s: %s is linked, but %s says no", files[0], section, specIndex)
		case !slices.Equal(line.files, files):
			t.Errorf("%s: %s names %v, but the links are in %v (-update-spec mends it)", specIndex, section, line.files, files)
		}
	}
	for section, line := range index {
		if line.status != "no" && len(linked[section]) == 0 {
			t.Errorf("%s: %s is %s, but nothing links it", specIndex, section, line.status)
		}
	}
	if !slices.ContainsFunc(head, func(l string) bool { return strings.HasPrefix(l, "version v1.") }) {
		t.Errorf("%s does not say which version of the specification it is about", specIndex)
	}
}

func writeIndex(t *testing.T, head []string, index map[string]specLine, linked map[string][]string) {
	t.Helper()
	for section, files := range linked {
		line := index[section]
		if line.status == "" {
			line.status = "partial"
		}
		line.files = files
		index[section] = line
	}
	var b strings.Builder
	for _, l := range head {
		b.WriteString(l + "\n")
	}
	for _, section := range slices.Sorted(maps.Keys(index)) {
		line := index[section]
		if line.status != "no" && len(linked[section]) == 0 {
			continue
		}
		b.WriteString(strings.TrimSpace(fmt.Sprintf("%-70s %-7s %s", section, line.status, strings.Join(line.files, " "))) + "\n")
	}
	if err := os.WriteFile(specIndex, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
