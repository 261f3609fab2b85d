package policy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Limits on what is read from policy directories.
const (
	maxSourceFile  = 16 << 20
	maxSourceTotal = 64 << 20
	maxSourceFiles = 10_000
	maxSourceDepth = 16
)

// Problem is something wrong in a bundle, at a place in a file.
type Problem struct {
	// File is the file as the bundle was given, joined with the path inside it.
	File string `json:"file"`
	// Line and Col count from 1; 0 means the whole file.
	Line int `json:"line,omitempty"`
	// Col is the column.
	Col int `json:"col,omitempty"`
	// Message says what is wrong.
	Message string `json:"message"`
	// Warning is true when the set may become active all the same.
	Warning bool `json:"warning,omitempty"`
}

// Error implements the error interface.
func (p Problem) Error() string {
	where := p.File
	if p.Line > 0 {
		where = fmt.Sprintf("%s:%d", where, p.Line)
		if p.Col > 0 {
			where = fmt.Sprintf("%s:%d", where, p.Col)
		}
	}
	if where == "" {
		return p.Message
	}
	return where + ": " + p.Message
}

// Problems is what is wrong with a set of bundles.
type Problems []Problem

// Error implements the error interface: one line for each problem that is no warning.
func (ps Problems) Error() string {
	lines := make([]string, 0, len(ps))
	for _, p := range ps {
		if !p.Warning {
			lines = append(lines, p.Error())
		}
	}
	return strings.Join(lines, "\n")
}

// errors returns the problems that keep a set from becoming active.
func (ps Problems) errors() Problems {
	return slices.DeleteFunc(slices.Clone(ps), func(p Problem) bool { return p.Warning })
}

func problem(file string, line int, format string, args ...any) Problem {
	return Problem{File: file, Line: line, Message: fmt.Sprintf(format, args...)}
}

// asProblems unpacks an error that may hold problems.
func asProblems(err error) Problems {
	var ps Problems
	var p Problem
	switch {
	case err == nil:
		return nil
	case errors.As(err, &ps):
		return ps
	case errors.As(err, &p):
		return Problems{p}
	}
	return Problems{{Message: err.Error()}}
}

// sourceFile is one file of a bundle: where it was found, its path inside the bundle (slashes), and its bytes as they are.
type sourceFile struct {
	name string
	path string
	data []byte
}

func (f sourceFile) isRego() bool { return strings.HasSuffix(f.path, ".rego") }
func (f sourceFile) isTest() bool { return strings.HasSuffix(f.path, "_test.rego") }
func (f sourceFile) isData() bool {
	switch path.Ext(f.path) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// readBundles reads every policy file of the given directories and bundle files. Hidden files are passed over.
func readBundles(bundles []string) ([]sourceFile, error) {
	r := &reader{}
	for _, b := range bundles {
		info, err := os.Stat(b)
		switch {
		case err != nil:
			return nil, problem(b, 0, "cannot be read: %v", errors.Unwrap(err))
		case info.IsDir():
			err = r.directory(b)
		case strings.HasSuffix(b, ".tar.gz"):
			err = r.archive(b)
		default:
			err = r.single(b)
		}
		if err != nil {
			return nil, err
		}
	}
	return r.files, nil
}

type reader struct {
	files []sourceFile
	total int
}

func (r *reader) add(name, inside string, in io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(in, maxSourceFile+1))
	if err != nil {
		return problem(name, 0, "cannot be read: %v", err)
	}
	r.total += len(data)
	switch {
	case len(data) > maxSourceFile:
		return problem(name, 0, "is larger than %d MiB", maxSourceFile>>20)
	case r.total > maxSourceTotal:
		return problem(name, 0, "the bundles are larger than %d MiB", maxSourceTotal>>20)
	case len(r.files) >= maxSourceFiles:
		return problem(name, 0, "the bundles hold more than %d files", maxSourceFiles)
	}
	r.files = append(r.files, sourceFile{name: name, path: inside, data: bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))})
	return nil
}

// directory reads a tree through os.Root, so that no link leads out of it.
func (r *reader) directory(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return problem(dir, 0, "cannot be read: %v", err)
	}
	defer func() { _ = root.Close() }() // opened for reading only
	return r.walk(root, dir, ".", 0)
}

func (r *reader) walk(root *os.Root, dir, at string, depth int) error {
	if depth > maxSourceDepth {
		return problem(filepath.Join(dir, at), 0, "folders are nested more than %d deep", maxSourceDepth)
	}
	entries, err := fs.ReadDir(root.FS(), at)
	if err != nil {
		return problem(filepath.Join(dir, at), 0, "cannot be read: %v", err)
	}
	for _, e := range entries {
		inside := path.Join(at, e.Name())
		name := filepath.Join(dir, filepath.FromSlash(inside))
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		info, err := root.Stat(inside)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // an editor's temporary file that is gone again
		case err != nil:
			return problem(name, 0, "cannot be read: %v", err)
		case info.IsDir():
			if err := r.walk(root, dir, inside, depth+1); err != nil {
				return err
			}
			continue
		case !info.Mode().IsRegular():
			continue
		}
		if f := (sourceFile{path: inside}); !f.isRego() && !f.isData() {
			continue
		}
		if err := r.open(root, inside, name); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) open(root *os.Root, inside, name string) error {
	f, err := root.Open(inside)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return problem(name, 0, "cannot be read: %v", err)
	}
	defer func() { _ = f.Close() }() // opened for reading only
	return r.add(name, inside, f)
}

func (r *reader) single(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return problem(name, 0, "cannot be read: %v", err)
	}
	defer func() { _ = f.Close() }() // opened for reading only
	inside := filepath.Base(name)
	if sf := (sourceFile{path: inside}); !sf.isRego() {
		return problem(name, 0, "is neither a directory, a bundle (.tar.gz) nor a .rego file")
	}
	return r.add(name, inside, f)
}

// digest is the revision of a set: it changes whenever a path or a byte of any file changes.
func digest(sets ...[]sourceFile) string {
	h := sha256.New()
	for _, files := range sets {
		sorted := slices.Clone(files)
		slices.SortFunc(sorted, func(a, b sourceFile) int { return strings.Compare(a.name, b.name) })
		for _, f := range sorted {
			sum := sha256.Sum256(f.data)
			fmt.Fprintf(h, "%d:%s:%x\n", len(f.name), f.name, sum)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// digestsByOwner is a digest of the files of each owner: a tenant, the operator, or nobody in particular ("").
func digestsByOwner(files []sourceFile, modules []moduleFile) map[string]string {
	owners := map[string]string{}
	for _, m := range modules {
		owners[m.source.name] = m.owner
	}
	sets := map[string][]sourceFile{}
	for _, f := range files {
		owner, ok := owners[f.name]
		if !ok && f.isData() {
			owner, _, _ = strings.Cut(f.path, "/")
		}
		if !f.isTest() {
			sets[owner] = append(sets[owner], f)
		}
	}
	out := map[string]string{}
	for owner, set := range sets {
		out[owner] = digest(set)
	}
	return out
}
