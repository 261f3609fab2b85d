package policy

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/tester"
)

// testTimeout bounds one test of a bundle.
const testTimeout = 5 * time.Second

// TestResult is the outcome of one Rego test.
type TestResult struct {
	// File and Line are where the test stands.
	File string `json:"file"`
	// Line is the line of the rule.
	Line int `json:"line"`
	// Package is the package of the test.
	Package string `json:"package"`
	// Name is the name of the rule.
	Name string `json:"name"`
	// Pass says whether it holds.
	Pass bool `json:"pass"`
	// Skipped says that it begins with todo_ and was not run.
	Skipped bool `json:"skipped,omitzero"`
	// Message says what went wrong.
	Message string `json:"message,omitzero"`
	// Output is what the test printed.
	Output string `json:"output,omitzero"`
	// Duration is how long it took.
	Duration time.Duration `json:"duration_ns,format:nano"`
}

// TestSummary counts test results.
type TestSummary struct {
	// Passed, Failed and Skipped are numbers of tests.
	Passed int `json:"passed"`
	// Failed is the number that failed.
	Failed int `json:"failed"`
	// Skipped is the number that was not run.
	Skipped int `json:"skipped"`
}

func summarize(results []TestResult) TestSummary {
	var s TestSummary
	for _, r := range results {
		switch {
		case r.Skipped:
			s.Skipped++
		case r.Pass:
			s.Passed++
		default:
			s.Failed++
		}
	}
	return s
}

func testProblems(results []TestResult) Problems {
	var out Problems
	for _, r := range results {
		if !r.Pass && !r.Skipped {
			out = append(out, Problem{File: r.File, Line: r.Line, Message: fmt.Sprintf("test %s.%s: %s", r.Package, r.Name, r.Message)})
		}
	}
	return out
}

// runTests runs the tests of the operator and of each tenant (and of the library, if asked), each with the data that those
// rules see when they are active.
func runTests(ctx context.Context, modules []moduleFile, data *dataset, tenants []string, library bool) ([]TestResult, Problems) {
	if !library { // its tests are the business of those who build it
		modules = slices.DeleteFunc(slices.Clone(modules), func(m moduleFile) bool { return m.owner == "hansa" && m.source.isTest() })
	}
	compiler, parsed, problems := compileModules(modules, true)
	if len(problems) > 0 {
		return nil, problems
	}
	owners := map[string]bool{}
	for _, m := range modules {
		if m.source.isTest() && (m.owner != "hansa" || library) {
			owners[m.owner] = true
		}
	}
	var out []TestResult
	for owner := range owners {
		store := data.all
		prefix := ast.Ref{ast.DefaultRootDocument, ast.StringTerm(owner)}
		if owner != "hansa" && owner != "operator" {
			prefix = ast.Ref{ast.DefaultRootDocument, ast.StringTerm("tenants"), ast.StringTerm(owner)}
			if t := data.tenants[owner]; t != nil {
				store = t.store
			}
		}
		results, err := runOwner(ctx, compiler, parsed, store, prefix)
		if err != nil {
			return nil, asProblems(err)
		}
		out = append(out, results...)
	}
	slices.SortFunc(out, func(a, b TestResult) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	return out, nil
}

func runOwner(ctx context.Context, compiler *ast.Compiler, modules map[string]*ast.Module, store storage.Store, prefix ast.Ref) ([]TestResult, error) {
	txn, err := store.NewTransaction(ctx)
	if err != nil {
		return nil, err
	}
	defer store.Abort(ctx, txn)
	ch, err := tester.NewRunner().SetCompiler(compiler).SetStore(store).SetModules(modules).SetTimeout(testTimeout).
		CapturePrintOutput(true).SetPrefixMatchers(prefix).SetParallel(1).RunTests(ctx, txn)
	if err != nil {
		return nil, asProblems(regoProblems("", err))
	}
	var out []TestResult
	for r := range ch {
		t := TestResult{File: r.Location.File, Line: r.Location.Row, Package: strings.TrimPrefix(r.Package, "data."), Name: r.Name,
			Pass: r.Pass(), Skipped: r.Skip, Duration: r.Duration, Output: cleanLines(string(r.Output))}
		switch {
		case r.Error != nil:
			t.Message = clean(r.Error.Error(), 500)
		case r.Fail && r.FailedAt != nil && r.FailedAt.Location != nil:
			t.Message = fmt.Sprintf("failed at line %d: %s", r.FailedAt.Location.Row, clean(string(r.FailedAt.Location.Text), 200))
		case r.Fail:
			t.Message = "failed"
		}
		out = append(out, t)
	}
	return out, nil
}

// cleanLines keeps what tests print to lines of printable text.
func cleanLines(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(lines) > 100 {
		lines = append(lines[:100], "...")
	}
	for i := range lines {
		lines[i] = clean(lines[i], 1000)
	}
	return strings.Join(lines, "\n")
}
