package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"hansa/homeserver/adminapi"
	"hansa/policy"
)

// leaves are the verbs that do something.
func leaves(c *cobra.Command) []*cobra.Command {
	if !c.HasSubCommands() {
		return []*cobra.Command{c}
	}
	var out []*cobra.Command
	for _, s := range c.Commands() {
		if s.Name() != "help" && s.Name() != "completion" {
			out = append(out, leaves(s)...)
		}
	}
	return out
}

// Every verb names the decision point that is asked, or says why none is.
func TestVerbs_AreBound(t *testing.T) {
	t.Parallel()
	points := map[string]bool{}
	for _, p := range policy.Points() {
		points[string(p.Point)] = true
	}
	for _, c := range leaves(newRoot()) {
		point := c.Annotations["point"]
		if reason, none := strings.CutPrefix(point, "none: "); none && len(reason) > 5 {
			if c.Flags().Lookup("server") != nil && c.Name() != "demo" {
				t.Errorf("%s asks the server, and names no decision point", c.CommandPath())
			}
			continue
		}
		name, action, ok := strings.Cut(point, " ")
		if !ok || !points[name] || !strings.Contains(action, ".") {
			t.Errorf("%s is bound to %q: name a decision point and an action, or none and why", c.CommandPath(), point)
		}
		if c.Flags().Lookup("server") == nil || c.Flags().Lookup("config") == nil {
			t.Errorf("%s asks a server, and has no flags to find it", c.CommandPath())
		}
	}
}

// Every verb says what it does, and those that print tables print JSON as well.
func TestVerbs_HaveHelpAndJSON(t *testing.T) {
	t.Parallel()
	silent := []string{"init", "serve", "demo", "set", "lock", "unlock", "suspend", "unsuspend", "deactivate", "wipe", "sample", "add"}
	for _, c := range leaves(newRoot()) {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: %q is no description", c.CommandPath(), c.Short)
		}
		if c.Flags().Lookup("json") == nil && !slices.Contains(silent, c.Name()) {
			t.Errorf("%s has no --json", c.CommandPath())
		}
	}
}

var (
	prompt      = regexp.MustCompile(`(?:^|\s)(?:bin/|/)?hansa ([a-z][^|;&#` + "`" + `]*)`)
	placeholder = regexp.MustCompile(`<[^>]*>`)
)

// commands are the hansa commands in the shell blocks of a document and, in backquotes, in its text.
func commands(t *testing.T, name string) []string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	shell, fenced := false, false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if lang, ok := strings.CutPrefix(line, "```"); ok {
			shell, fenced = !fenced && (lang == "sh" || lang == "bash"), !fenced
			continue
		}
		if shell {
			line, _, _ = strings.Cut(line, "#")
			if m := prompt.FindStringSubmatch(" " + line); m != nil {
				out = append(out, m[1])
			}
			continue
		}
		if fenced {
			continue
		}
		for i, part := range strings.Split(line, "`") {
			if rest, ok := strings.CutPrefix(part, "hansa "); ok && i%2 == 1 {
				out = append(out, rest)
			}
		}
	}
	return out
}

// What the documents tell people to type exists, with its flags and arguments.
func TestDocuments_CommandsExist(t *testing.T) {
	t.Parallel()
	var files []string
	for _, pattern := range []string{"../../*.md", "../../docs/*.md", "../../docs/decisions/*.md", "../../rego/*.md", "../../rego/*/*.md", "../../test/*/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	seen := 0
	for _, file := range files {
		for _, line := range commands(t, file) {
			seen++
			words := strings.Fields(strings.NewReplacer("'", "", `"`, "").Replace(placeholder.ReplaceAllString(line, "x")))
			root := newRoot()
			c, rest, err := root.Find(words)
			if err != nil || c == root {
				t.Errorf("%s: there is no `hansa %s`", file, line)
				continue
			}
			if c.HasSubCommands() {
				if len(rest) > 0 && !strings.Contains(rest[0], "|") && !strings.HasSuffix(rest[0], "...") {
					t.Errorf("%s: %s has no verb %s", file, c.CommandPath(), rest[0])
				}
				continue
			}
			if err := c.ParseFlags(rest); err != nil {
				t.Errorf("%s: `hansa %s`: %v", file, line, err)
				continue
			}
			// A verb that is only named in a sentence stands without arguments.
			if args := c.Flags().Args(); len(rest) > 0 && len(args) > 0 {
				if err := c.Args(c, args); err != nil {
					t.Errorf("%s: `hansa %s`: %v", file, line, err)
				}
			}
		}
	}
	if seen < 30 {
		t.Errorf("only %d commands were found in %d documents: the test does not see them", seen, len(files))
	}
}

// readmeBlock is the shell block below a heading of the README.
func readmeBlock(t *testing.T, text, heading string, n int) []string {
	t.Helper()
	_, rest, ok := strings.Cut(text, "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("README.md has no heading %s", heading)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	parts := strings.Split(rest, "```")
	for i := 1; i < len(parts); i += 2 {
		body, ok := strings.CutPrefix(parts[i], "sh\n")
		if !ok {
			continue
		}
		if n == 0 {
			return strings.Split(strings.TrimSpace(body), "\n")
		}
		n--
	}
	t.Fatalf("%s has no such block", heading)
	return nil
}

// The README's own commands, run as they stand but for the place and the binary, which is the one of this test.
func TestReadme_CommandsWork(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	dir, bin := t.TempDir(), t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, "hansa")); err != nil { // testscript's Main runs main under that name
		t.Fatal(err)
	}
	ports, err := freePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	shell := func(line string) *exec.Cmd {
		line = strings.NewReplacer("bin/hansa", "hansa", "/srv/hansa", dir+"/srv").Replace(line)
		cmd := exec.CommandContext(t.Context(), "sh", "-ec", "exec "+line)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"),
			"HANSA_LISTEN_CLIENT=127.0.0.1:"+ports[0], "HANSA_LISTEN_ADMIN=127.0.0.1:"+ports[1])
		return cmd
	}
	run := func(line string) {
		if out, err := shell(line).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
	for _, line := range slices.Concat(readmeBlock(t, text, "Run it", 0), readmeBlock(t, text, "A first policy in five minutes", 0)) {
		switch {
		case line == "make build":
		case strings.Contains(line, " serve "):
			serve := shell(line)
			var log bytes.Buffer
			serve.Stderr = &log
			serve.Cancel = func() error { return serve.Process.Signal(os.Interrupt) }
			serve.WaitDelay = 20 * time.Second
			if err := serve.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := serve.Wait(); err != nil && t.Failed() {
					t.Logf("%v\n%s", err, log.String())
				}
			})
			if !poll(time.Minute, func() bool {
				c, err := adminapi.DialSocket(context.Background(), dir+"/srv/data/admin.sock")
				if err == nil {
					_ = c.Close()
				}
				return err == nil
			}) {
				t.Fatalf("the server does not answer\n%s", log.String())
			}
		default:
			run(line)
		}
	}
	// The policy that the README shows is sound.
	for _, part := range strings.Split(text, "```")[1:] {
		_, body, _ := strings.Cut(part, "\n")
		name, ok := strings.CutPrefix(strings.SplitN(body, "\n", 2)[0], "# policy/")
		if !ok {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "srv", "policy", filepath.FromSlash(name)), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run("bin/hansa policy check -c /srv/hansa/hansa.yaml")
	run("bin/hansa policy reload -c /srv/hansa/hansa.yaml")
}

// The metrics that the documents tell operators to watch exist.
func TestDocuments_MetricsExist(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, dir := range []string{"../../homeserver", "../../policy", "../../storage"} {
		err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") {
				return err
			}
			b, err := os.ReadFile(name)
			code.Write(b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	names := regexp.MustCompile("`(hansa_[a-z_]+)`").FindAllStringSubmatch(string(text), -1)
	if len(names) < 3 {
		t.Errorf("found %d metrics", len(names))
	}
	for _, m := range names {
		if !strings.Contains(code.String(), `"`+m[1]+`"`) {
			t.Errorf("docs/operating.md speaks of the metric %s, which nothing counts", m[1])
		}
	}
}
