package room

import (
	"slices"
	"strings"
	"sync"

	"hansa/storage/statemap"
)

// resolved is what became of several states.
type resolved struct {
	root  statemap.Hash
	nodes []statemap.Node
}

// resolutions remember what state resolution has made of states. The same states always make the same one, and in a room that stays forked
// each message asks for it again. The nodes are kept with it, because whoever resolved them first may not have stored them. There are two
// generations, of which the older one is dropped when the younger is full.
type resolutions struct {
	mu         sync.Mutex // guards what follows
	max        int
	old, young map[string]resolved
}

func newResolutions(n int) *resolutions {
	return &resolutions{max: n / 2, old: map[string]resolved{}, young: map[string]resolved{}}
}

// keyOf is the same for the same states in any order.
func keyOf(roots []statemap.Hash) string {
	list := make([]string, len(roots))
	for i := range roots {
		list[i] = string(roots[i][:])
	}
	slices.Sort(list)
	return strings.Join(list, "")
}

func (r *resolutions) find(key string) (resolved, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v, ok := r.young[key]; ok {
		return v, true
	}
	v, ok := r.old[key]
	return v, ok
}

func (r *resolutions) put(key string, v resolved) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.young) >= r.max {
		r.old, r.young = r.young, make(map[string]resolved, r.max)
	}
	r.young[key] = v
}
