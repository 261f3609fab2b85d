package room

import (
	"context"
	"sync"

	"hansa/storage"
	"hansa/storage/statemap"
)

// nodeCache keeps nodes of the state tree that were read or made lately. Nodes never change, so it never has to be right by
// luck. It holds two generations and drops the older one when the younger is full.
type nodeCache struct {
	mu         sync.Mutex
	max        int
	old, young map[statemap.Hash][]byte
}

func newNodeCache(n int) *nodeCache {
	return &nodeCache{max: n / 2, old: map[statemap.Hash][]byte{}, young: map[statemap.Hash][]byte{}}
}

func (c *nodeCache) put(h statemap.Hash, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.young) >= c.max {
		c.old, c.young = c.young, make(map[statemap.Hash][]byte, c.max)
	}
	c.young[h] = data
}

func (c *nodeCache) find(h statemap.Hash) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d, ok := c.young[h]; ok {
		return d, true
	}
	d, ok := c.old[h]
	return d, ok
}

// loader reads nodes through the cache.
func (s *Service) loader(ctx context.Context) statemap.Loader {
	return s.cached(func(missing []statemap.Hash) (found map[statemap.Hash][]byte, err error) {
		err = s.DB.Read(ctx, func(tx *storage.Tx) error { found, err = tx.LoadNodes(missing); return err })
		return found, err
	})
}

func (s *Service) cached(read statemap.Loader) statemap.Loader {
	return func(hashes []statemap.Hash) (map[statemap.Hash][]byte, error) {
		out := make(map[statemap.Hash][]byte, len(hashes))
		var missing []statemap.Hash
		for _, h := range hashes {
			if d, ok := s.nodes.find(h); ok {
				out[h] = d
			} else {
				missing = append(missing, h)
			}
		}
		if len(missing) == 0 {
			return out, nil
		}
		found, err := read(missing)
		for h, d := range found {
			out[h] = d
			s.nodes.put(h, d)
		}
		return out, err
	}
}

// NodesIn is a loader of the state tree that reads through the cache and inside a transaction.
func (s *Service) NodesIn(tx *storage.Tx) statemap.Loader {
	return s.cached(tx.LoadNodes)
}
