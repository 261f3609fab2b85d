package room

import (
	"sync"
	"time"
)

const (
	// budgetBurst is how many requests may be made at once for the events of one server or one room, budgetRate how many a second in
	// the long run.
	budgetBurst = 400
	budgetRate  = 4
	// budgetKeys is how many servers and rooms are remembered.
	budgetKeys = 20_000
)

// budget limits what is fetched from other servers because of what they send: one bucket for each server and each room.
type budget struct {
	mu      sync.Mutex
	buckets map[string]bucket
}

type bucket struct {
	left float64
	at   time.Time
}

// spend takes one request. It reports false where there is none left.
func (b *budget) spend(key string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	k, ok := b.buckets[key]
	if !ok {
		if len(b.buckets) >= budgetKeys {
			for other, o := range b.buckets {
				if o.left+now.Sub(o.at).Seconds()*budgetRate >= budgetBurst {
					delete(b.buckets, other)
				}
			}
			if len(b.buckets) >= budgetKeys {
				return false
			}
		}
		k = bucket{left: budgetBurst, at: now}
	}
	k.left = min(budgetBurst, k.left+max(0, now.Sub(k.at).Seconds())*budgetRate)
	k.at = now
	if k.left >= 1 {
		k.left--
		b.buckets[key] = k
		return true
	}
	b.buckets[key] = k
	return false
}
