package policy

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
)

// archive reads a standard OPA bundle. Only files below its declared roots are accepted, and only roots that a bundle may
// have: `config`, `operator` and `tenants`. Data in it stands at its place already (config/<tenant>/data.json).
func (r *reader) archive(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return problem(name, 0, "cannot be read: %v", err)
	}
	defer func() { _ = f.Close() }() // opened for reading only
	zipped, err := gzip.NewReader(f)
	if err != nil {
		return problem(name, 0, "is not a gzip file: %v", err)
	}
	first := len(r.files)
	roots := []string{}
	tr := tar.NewReader(io.LimitReader(zipped, maxSourceTotal+1))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return problem(name, 0, "is not a sound tar file: %v", err)
		}
		inside := strings.TrimPrefix(h.Name, "/")
		switch {
		case h.Typeflag == tar.TypeDir:
			continue
		case h.Typeflag != tar.TypeReg || !filepath.IsLocal(inside) || path.Clean(inside) != strings.TrimPrefix(inside, "./") || strings.Contains(inside, "\\"):
			return problem(name, 0, "holds an entry with an unsound name or kind: %q", h.Name)
		}
		inside = path.Clean(inside)
		switch inside {
		case "patch.json":
			return problem(name, 0, "is a delta bundle, which makes sense on a bundle server only")
		case ".signatures.json":
			return problem(name, 0, "is signed, and there is no key to check the signature with")
		}
		if inside == ".manifest" {
			if roots, err = readManifest(tr); err != nil {
				return problem(name, 0, "has a bad .manifest: %v", err)
			}
			continue
		}
		if sf := (sourceFile{path: inside}); !sf.isRego() && path.Base(inside) != "data.json" && path.Base(inside) != "data.yaml" {
			continue
		}
		if err := r.add(name+":"+inside, inside, tr); err != nil {
			return err
		}
	}
	return r.checkRoots(name, first, roots)
}

func readManifest(in io.Reader) ([]string, error) {
	var m struct {
		Roots []string `json:"roots"`
	}
	data, err := io.ReadAll(io.LimitReader(in, 1<<20))
	if err != nil {
		return nil, err
	}
	err = json.Unmarshal(data, &m)
	return m.Roots, err
}

// checkRoots refuses roots that would reach the library, and turns the data paths of the bundle into those of a directory.
func (r *reader) checkRoots(name string, first int, roots []string) error {
	if len(roots) == 0 {
		roots = []string{"config", "operator", "tenants"}
	}
	for _, root := range roots {
		top, _, _ := strings.Cut(strings.Trim(root, "/"), "/")
		if !slices.Contains([]string{"config", "operator", "tenants"}, top) {
			return problem(name, 0, "declares the root %q; a bundle may have config, operator and tenants", root)
		}
	}
	for i := first; i < len(r.files); i++ {
		f := &r.files[i]
		if !f.isData() {
			continue
		}
		under := slices.ContainsFunc(roots, func(root string) bool {
			root = strings.Trim(root, "/")
			return f.path == root || strings.HasPrefix(f.path, root+"/")
		})
		rest, ok := strings.CutPrefix(f.path, "config/")
		if !under || !ok {
			return problem(f.name, 0, "data must lie below config/ and below a root of the bundle")
		}
		f.path = rest
	}
	return nil
}
