package directory

import (
	"container/list"
	"sync"

	"hansa/matrix"
)

// maxKept is how many rooms the hierarchies have met, in all, that are kept for their next pages.
const maxKept = 100_000

// walks are hierarchies of which pages were answered and more may be asked for. What is not kept, or was asked of another node, is gone through
// again from the start.
type walks struct {
	mu   sync.Mutex // guards what follows
	kept map[walkKey]*list.Element
	used *list.List // of *keptWalk, the newest first
	size int
}

type walkKey struct {
	user  matrix.UserID
	token string
}

type keptWalk struct {
	key  walkKey
	walk *walk
}

func newWalks() *walks { return &walks{kept: map[walkKey]*list.Element{}, used: list.New()} }

func (w *walk) size() int { return len(w.seen) + len(w.stack) }

// put keeps a hierarchy for whoever has the token.
func (ws *walks) put(user matrix.UserID, token string, w *walk) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	key := walkKey{user, token}
	if e, ok := ws.kept[key]; ok {
		ws.drop(e)
	}
	ws.kept[key] = ws.used.PushFront(&keptWalk{key, w})
	for ws.size += w.size(); ws.size > maxKept; {
		ws.drop(ws.used.Back())
	}
}

// take returns a hierarchy that was kept, nil for none. It is the caller's then.
func (ws *walks) take(user matrix.UserID, token string) *walk {
	if token == "" {
		return nil
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	e, ok := ws.kept[walkKey{user, token}]
	if !ok {
		return nil
	}
	ws.drop(e)
	return e.Value.(*keptWalk).walk
}

// drop forgets a hierarchy. The caller holds mu.
func (ws *walks) drop(e *list.Element) {
	k := ws.used.Remove(e).(*keptWalk)
	delete(ws.kept, k.key)
	ws.size -= k.walk.size()
}
