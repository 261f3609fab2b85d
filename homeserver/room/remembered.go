package room

import (
	"sync"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/matrix/stateres"
	"hansa/storage"
)

// aged keeps a bounded number of values, those that were used lately. It holds two generations and drops the older one when the younger is
// full.
type aged[K comparable, V any] struct {
	mu         sync.Mutex // guards what follows
	max        int
	old, young map[K]V
}

func newAged[K comparable, V any](n int) *aged[K, V] {
	return &aged[K, V]{max: n / 2, old: map[K]V{}, young: map[K]V{}}
}

func (a *aged[K, V]) find(k K) (V, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	v, ok := a.young[k]
	if !ok {
		if v, ok = a.old[k]; ok {
			a.keep(k, v)
		}
	}
	return v, ok
}

func (a *aged[K, V]) put(k K, v V) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keep(k, v)
}

// keep puts a value into the younger generation. The caller holds mu.
func (a *aged[K, V]) keep(k K, v V) {
	if len(a.young) >= a.max {
		a.old, a.young = a.young, make(map[K]V, a.max)
	}
	a.young[k] = v
}

func (a *aged[K, V]) forget(k K) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.young, k)
	delete(a.old, k)
}

func (a *aged[K, V]) clear() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.old, a.young = map[K]V{}, map[K]V{}
}

// graph is what was read lately of the auth graph and its index. It holds what never changes once it is stored, so that it is never wrong
// whoever writes: the place of an event, what a chain is about, the links that leave the part of a chain that was there, and state events that
// have their place in a timeline. Where an audit sets the state after an event right, these events are forgotten (Service.forget).
type graph struct {
	places *aged[matrix.EventID, stateres.Place]
	at     *aged[stateres.Place, matrix.EventID]
	keys   *aged[int64, event.StateKey]
	below  *aged[int64, chainLinks]
	events *aged[matrix.EventID, *storage.Event]
}

// chainLinks are the links that leave a chain up to one of its places.
type chainLinks struct {
	upto  int64
	links []stateres.Link
}

// The numbers of what is remembered, some 30 MiB altogether.
const (
	graphPlaces = 40_000
	graphEvents = 8_000
)

func newGraph() *graph {
	return &graph{places: newAged[matrix.EventID, stateres.Place](graphPlaces), at: newAged[stateres.Place, matrix.EventID](graphPlaces),
		keys: newAged[int64, event.StateKey](graphPlaces), below: newAged[int64, chainLinks](graphPlaces),
		events: newAged[matrix.EventID, *storage.Event](graphEvents)}
}

func (g *graph) place(id matrix.EventID, p stateres.Place) {
	g.places.put(id, p)
	g.at.put(p, id)
}

// event remembers a stored event. An outlier is judged anew when it gets its place, and what is withheld may be released.
func (g *graph) event(e *storage.Event) {
	if e.StateKey != nil && e.Flags&(storage.Outlier|storage.Withheld|storage.SoftFailed) == 0 && e.Pos != 0 {
		g.events.put(e.ID, e)
	}
}

// redacted forgets events whose content was taken away.
func (g *graph) redacted(list []storage.Redaction) {
	for _, r := range list {
		g.events.forget(r.Target)
	}
}

// inRange finds the events of a part of a chain. It reports false where not all of them are remembered.
func (g *graph) inRange(r stateres.Range) (ids []matrix.EventID, whole bool) {
	for seq := r.First; seq <= r.Last; seq++ {
		id, ok := g.at.find(stateres.Place{Chain: r.Chain, Seq: seq})
		if !ok {
			return nil, false
		}
		ids = append(ids, id)
	}
	return ids, true
}
