package policy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
)

// Check reads bundles and returns what is wrong with them: syntax, types (a misspelt member of the input), rules out of
// place, bad data. It does not run their tests; see Test.
func Check(ctx context.Context, bundles, tenants []string) Problems {
	e := &Engine{opts: Options{Bundles: bundles, Now: time.Now, Log: discardLog()}, codec: newCodec(), tenants: normalNames(tenants)}
	files, err := readBundles(bundles)
	if err != nil {
		return asProblems(err)
	}
	set, problems := e.build(ctx, files, false)
	if len(problems.errors()) > 0 {
		return problems
	}
	library, err := librarySource()
	if err != nil {
		return asProblems(err)
	}
	modules, _ := parseModules(slices.DeleteFunc(library, sourceFile.isTest), true) // the library parsed a moment ago
	own, _ := parseModules(set.files, false)                                        // and so did these
	_, _, more := compileModules(append(modules, own...), true)
	return append(problems, more...)
}

// Test runs the Rego tests of bundles, and those of the library if asked.
func Test(ctx context.Context, bundles, tenants []string, library bool) ([]TestResult, error) {
	files, err := readBundles(bundles)
	if err != nil {
		return nil, err
	}
	builtin, err := librarySource()
	if err != nil {
		return nil, err
	}
	modules, problems := parseModules(builtin, true)
	own, more := parseModules(files, false)
	config, bad := readData(files)
	if problems = append(append(problems, more...), bad...); len(problems) > 0 {
		return nil, problems
	}
	tenants = normalNames(tenants)
	data, err := newDataset(ctx, config, tenants, nil, nil, time.Now())
	if err != nil {
		return nil, err
	}
	results, problems := runTests(ctx, append(modules, own...), data, tenants, library)
	if len(problems) > 0 {
		return nil, problems
	}
	return results, nil
}

// ParseInput reads an input from JSON, as records and `hansa policy eval` hold it. Members that no input has are errors.
func ParseInput(data []byte) (*Input, error) {
	in := &Input{}
	if err := json.Unmarshal(data, in, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("policy: input: %w", err)
	}
	if in.Schema != "" && in.Schema != InputSchema {
		return nil, fmt.Errorf("policy: input: schema %q is not %q", in.Schema, InputSchema)
	}
	return in, nil
}

// Eval answers a question given as JSON. It records nothing.
func (e *Engine) Eval(ctx context.Context, p Point, input []byte) (Explanation, error) {
	in, err := ParseInput(input)
	if err != nil {
		return Explanation{}, err
	}
	if p != "" {
		in.Point = p
	}
	if _, ok := e.points[in.Point]; !ok {
		return Explanation{}, fmt.Errorf("policy: %q is no decision point (see `hansa policy points`)", in.Point)
	}
	if in.Subject == nil {
		return Explanation{}, fmt.Errorf("policy: input: subject is missing")
	}
	return e.Explain(ctx, in), nil
}

// Status is what an engine is doing.
type Status struct {
	// Revision is the id of the active rules and data.
	Revision string `json:"revision"`
	// Generation counts changes in this process.
	Generation uint64 `json:"generation"`
	// Since is when the present generation became active.
	Since time.Time `json:"since"`
	// OPA is the version of the engine.
	OPA string `json:"opa"`
	// Bundles are the bundles.
	Bundles []string `json:"bundles"`
	// Tenants are the hosted domains.
	Tenants []string `json:"tenants"`
	// Files are the active files with the hashes of their bytes.
	Files []FileStatus `json:"files"`
	// Tests are the bundle's tests when it was loaded.
	Tests TestSummary `json:"tests"`
	// Agreements is the number of agreement records.
	Agreements int `json:"agreements"`
	// Classes is the number of audience classes seen.
	Classes int `json:"classes"`
	// ClassMembers are the members of a party that tell classes apart.
	ClassMembers string `json:"class_members"`
	// Memo is the number of answers known.
	Memo int `json:"memo"`
	// Refused is the set that was not made active, nil while the files on disk are what is active.
	Refused *Failure `json:"refused,omitzero"`
}

// FileStatus is one active file.
type FileStatus struct {
	// File is the file.
	File string `json:"file"`
	// SHA256 is the hash of its bytes as they are.
	SHA256 string `json:"sha256"`
}

// Status returns what the engine is doing.
func (e *Engine) Status() Status {
	s := e.snapshot(e.opts.Now())
	e.mu.Lock()
	defer e.mu.Unlock()
	st := Status{Revision: s.revision, Generation: s.generation, Since: e.since, OPA: opaVersion(), Bundles: e.opts.Bundles, Tenants: e.tenants, Tests: e.tests,
		Agreements: len(s.data.agreements), Classes: s.contacts.len(), ClassMembers: e.ClassScheme(), Memo: s.memo.len(), Refused: e.failed}
	for _, f := range e.files {
		sum := sha256.Sum256(f.data)
		st.Files = append(st.Files, FileStatus{File: f.name, SHA256: hex.EncodeToString(sum[:])})
	}
	return st
}
