package policy

import (
	"hash/maphash"
	"sync"
)

const (
	memoShards   = 32
	memoPerShard = 4096
	memoMaxKey   = 4096
)

// memo keeps verdicts by the bytes of everything that the rules read to reach them. It belongs to one snapshot, so a new
// set of rules or data starts with an empty one. A shard that is full starts over.
type memo struct {
	seed   maphash.Seed
	shards [memoShards]memoShard
}

type memoShard struct {
	mu sync.RWMutex
	m  map[string]*verdict // guarded by mu
}

func newMemo() *memo { return &memo{seed: maphash.MakeSeed()} }

func (m *memo) shard(key []byte) *memoShard {
	return &m.shards[maphash.Bytes(m.seed, key)%memoShards]
}

func (m *memo) get(key []byte, minute int64) *verdict {
	s := m.shard(key)
	s.mu.RLock()
	v := s.m[string(key)]
	s.mu.RUnlock()
	if v == nil || v.minute != 0 && v.minute != minute {
		return nil
	}
	return v
}

func (m *memo) put(key []byte, v *verdict) {
	if len(key) > memoMaxKey {
		return
	}
	s := m.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil || len(s.m) >= memoPerShard {
		s.m = make(map[string]*verdict)
	}
	s.m[string(key)] = v
}

func (m *memo) len() int {
	n := 0
	for i := range m.shards {
		m.shards[i].mu.RLock()
		n += len(m.shards[i].m)
		m.shards[i].mu.RUnlock()
	}
	return n
}
