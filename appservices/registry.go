package appservices

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"hansa/matrix"
)

const (
	maxFile  = 256 << 10
	maxFiles = 1000
)

// set is the registrations that hold together at one time. It does not change.
type set struct {
	list    []*Registration // by ID
	byID    map[string]*Registration
	byToken map[[sha256.Size]byte]*Registration
}

// Check reads the registration files of a directory, as a server would. A directory that is not there holds none.
func Check(dir string, tenants []matrix.ServerName) (list []*Registration, warnings []string, err error) {
	s, warnings, err := load(dir, tenants)
	if err != nil {
		return nil, warnings, err
	}
	return s.list, warnings, nil
}

// load reads a directory. Everything that is wrong in any file is said.
func load(dir string, tenants []matrix.ServerName) (*set, []string, error) {
	s := &set{byID: map[string]*Registration{}, byToken: map[[sha256.Size]byte]*Registration{}}
	if dir == "" {
		return s, nil, nil
	}
	names, err := files(dir)
	if err != nil {
		return nil, nil, err
	}
	var errs []error
	var warnings []string
	for _, name := range names {
		text, err := read(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		r, w, err := parse(name, text, tenants)
		warnings = append(warnings, w...)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.list = append(s.list, r)
	}
	errs = append(errs, s.join()...)
	if err := errors.Join(errs...); err != nil {
		return nil, warnings, err
	}
	slices.SortFunc(s.list, func(a, b *Registration) int { return strings.Compare(a.ID, b.ID) })
	return s, warnings, nil
}

// files lists the registration files of a directory in the order of their names.
func files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the directory of bridges: %w", err)
	}
	var out []string
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") || ext != ".yaml" && ext != ".yml" {
			continue
		}
		out = append(out, filepath.Join(dir, e.Name()))
	}
	if len(out) > maxFiles {
		return nil, fmt.Errorf("%s holds more than %d registrations", dir, maxFiles)
	}
	return out, nil
}

func read(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s: has more than %d bytes", name, maxFile)
	}
	return os.ReadFile(name)
}

// join finds what does not go together.
//
// spec: application-service-api#registration
func (s *set) join() (errs []error) {
	hs := map[string]*Registration{}
	for _, r := range s.list {
		if other := s.byID[r.ID]; other != nil {
			errs = append(errs, fmt.Errorf("%s: the id %q is that of %s", r.File, r.ID, other.File))
		}
		if other := s.byToken[r.asHash]; other != nil {
			errs = append(errs, fmt.Errorf("%s: as_token is that of %s", r.File, other.File))
		}
		if other := s.byToken[sha256.Sum256([]byte(r.hsToken))]; other != nil {
			errs = append(errs, fmt.Errorf("%s: hs_token is the as_token of %s", r.File, other.File))
		}
		if other := hs[r.hsToken]; other != nil {
			errs = append(errs, fmt.Errorf("%s: hs_token is that of %s", r.File, other.File))
		}
		for _, other := range s.byID {
			if what := overlap(r, other); what != "" {
				errs = append(errs, fmt.Errorf("%s: overlaps with %s: both want %s for themselves", r.File, other.File, what))
			}
		}
		s.byID[r.ID], s.byToken[r.asHash], hs[r.hsToken] = r, r, r
	}
	return errs
}

// overlap finds names that two bridges want for themselves alone.
func overlap(a, b *Registration) string {
	if a.Tenant != b.Tenant {
		return ""
	}
	if a.Bot == b.Bot || fits(b.Users, string(a.Bot), true) || fits(a.Users, string(b.Bot), true) {
		return "the user " + string(a.Bot)
	}
	for _, lists := range [][2][]Namespace{{a.Users, b.Users}, {a.Aliases, b.Aliases}} {
		for _, x := range lists[0] {
			for _, y := range lists[1] {
				if x.Exclusive && y.Exclusive && (x.Regex == y.Regex || x.example != "" && y.re.MatchString(x.example) || y.example != "" && x.re.MatchString(y.example)) {
					return "names like " + x.Regex
				}
			}
		}
	}
	return ""
}

// reserved finds the bridge that a name of the tenant is reserved for.
func (s *set) reserved(name string, server matrix.ServerName, pick func(*Registration) []Namespace) *Registration {
	for _, r := range s.list {
		if r.reserves(name, server, pick(r)) {
			return r
		}
	}
	return nil
}

func usersOf(r *Registration) []Namespace   { return r.Users }
func aliasesOf(r *Registration) []Namespace { return r.Aliases }
