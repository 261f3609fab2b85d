package clientapi

import (
	"sync"

	"hansa/matrix/filter"
)

// filterCache keeps filters that clients send in full with every /sync, so that they are compiled once. It holds two
// generations and drops the older one when the younger is full.
type filterCache struct {
	mu         sync.Mutex
	old, young map[string]*filter.Filter
}

const (
	cachedFilters    = 1000
	cachedFilterSize = 4 << 10
)

// parse returns the compiled filter of a text.
func (c *filterCache) parse(text string) (*filter.Filter, error) {
	if len(text) > cachedFilterSize {
		return filter.Parse([]byte(text))
	}
	c.mu.Lock()
	f := c.young[text]
	if f == nil {
		f = c.old[text]
	}
	c.mu.Unlock()
	if f != nil {
		return f, nil
	}
	f, err := filter.Parse([]byte(text))
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.young == nil || len(c.young) >= cachedFilters {
		c.old, c.young = c.young, map[string]*filter.Filter{}
	}
	c.young[text] = f
	return f, nil
}
