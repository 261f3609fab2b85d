package resolve

import (
	"container/list"
	"sync"
)

// cache keeps the most recently used values.
type cache[V any] struct {
	mu    sync.Mutex // guards the rest
	max   int
	byKey map[string]*list.Element
	used  *list.List // of *entry, most recently used first
}

type entry[V any] struct {
	key   string
	value V
}

func newCache[V any](n int) *cache[V] {
	return &cache[V]{max: n, byKey: map[string]*list.Element{}, used: list.New()}
}

func (c *cache[V]) get(key string) (v V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byKey[key]
	if !ok {
		return v, false
	}
	c.used.MoveToFront(e)
	return e.Value.(*entry[V]).value, true
}

func (c *cache[V]) put(key string, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.byKey[key]; ok {
		e.Value.(*entry[V]).value = v
		c.used.MoveToFront(e)
		return
	}
	c.byKey[key] = c.used.PushFront(&entry[V]{key, v})
	if c.used.Len() > c.max {
		old := c.used.Remove(c.used.Back()).(*entry[V])
		delete(c.byKey, old.key)
	}
}

func (c *cache[V]) drop(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.byKey[key]; ok {
		c.used.Remove(e)
		delete(c.byKey, key)
	}
}
