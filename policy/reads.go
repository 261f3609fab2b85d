package policy

import (
	"slices"
	"strings"
)

// reads is what a set of rules can see of its input: the paths whose values matter, the paths of which only the
// presence matters, and whether the clock matters. It errs on the side of more.
type reads struct {
	values   map[string][]string // joined path -> path
	presence map[string][]string
	clock    bool
}

func newReads() *reads { return &reads{values: map[string][]string{}, presence: map[string][]string{}} }

func (r *reads) add(o *reads) {
	for k, p := range o.values {
		r.values[k] = p
	}
	for k, p := range o.presence {
		r.presence[k] = p
	}
	r.clock = r.clock || o.clock
}

// paths returns the value paths without those that a shorter one covers, and the presence paths that nothing covers.
func (r *reads) paths() (values, presence [][]string) {
	values = minimal(r.values)
	for _, p := range r.presence {
		if !covered(r.values, p) {
			presence = append(presence, p)
		}
	}
	slices.SortFunc(presence, slices.Compare[[]string])
	return values, presence
}

func minimal(m map[string][]string) [][]string {
	out := make([][]string, 0, len(m))
	for _, p := range m {
		if len(p) == 0 || !covered(m, p[:len(p)-1]) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, slices.Compare[[]string])
	return out
}

// covered says whether p or a prefix of it is in m.
func covered(m map[string][]string, p []string) bool {
	for n := len(p); n >= 0; n-- {
		if _, ok := m[strings.Join(p[:n], "\x00")]; ok {
			return true
		}
	}
	return false
}

// readsPrefix says whether anything at, above or below the path is read.
func (r *reads) readsPrefix(path ...string) bool {
	if covered(r.values, path) || covered(r.presence, path) {
		return true
	}
	prefix := strings.Join(path, "\x00") + "\x00"
	for _, m := range []map[string][]string{r.values, r.presence} {
		for k := range m {
			if strings.HasPrefix(k, prefix) {
				return true
			}
		}
	}
	return false
}
