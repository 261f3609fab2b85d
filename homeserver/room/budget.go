package room

import (
	"sync"
	"time"

	"hansa/matrix"
)

const (
	// roomBurst is how many requests may be made at once for the events of one room, roomRate how many a second in the long run.
	roomBurst, roomRate = 400, 4
	// serverBurst and serverRate are the same for what one server sends: after days of absence that is the newest event of many rooms.
	serverBurst, serverRate = 2000, 20
	// stateCost is what a whole state counts, which may be large.
	stateCost = 10
	// budgetKeys is how many servers and rooms are remembered.
	budgetKeys = 20_000
)

// budget limits what is fetched from other servers because of what they send: one bucket for each server and each room.
type budget struct {
	mu      sync.Mutex
	buckets map[string]*bucket
}

type bucket struct {
	left, burst, rate float64
	at                time.Time
}

// take takes requests from the budgets of a server and of a room, from both or from neither: a server that has used up its own budget takes
// nothing from what others may need for the room. It reports false where there is not enough left of one of them.
func (b *budget) take(server matrix.ServerName, room matrix.RoomID, cost float64, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.bucket("server "+string(server), serverBurst, serverRate, now)
	r := b.bucket("room "+string(room), roomBurst, roomRate, now)
	if s == nil || r == nil || s.left < cost || r.left < cost {
		return false
	}
	s.left -= cost
	r.left -= cost
	return true
}

// bucket returns a budget as it is now, nil where there are too many that are not full. The caller holds mu.
func (b *budget) bucket(key string, burst, rate float64, now time.Time) *bucket {
	k := b.buckets[key]
	if k == nil {
		if len(b.buckets) >= budgetKeys {
			for other, o := range b.buckets {
				if o.left+now.Sub(o.at).Seconds()*o.rate >= o.burst {
					delete(b.buckets, other)
				}
			}
			if len(b.buckets) >= budgetKeys {
				return nil
			}
		}
		k = &bucket{left: burst, burst: burst, rate: rate, at: now}
		b.buckets[key] = k
	}
	k.left = min(burst, k.left+max(0, now.Sub(k.at).Seconds())*rate)
	k.at = now
	return k
}
