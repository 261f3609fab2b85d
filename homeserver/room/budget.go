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
	buckets map[string]bucket
}

type bucket struct {
	left, burst, rate float64
	at                time.Time
}

// server and room take requests from the budgets of a server and of a room. They report false where there is not enough left.
func (b *budget) server(name matrix.ServerName, cost float64, now time.Time) bool {
	return b.spend("server "+string(name), serverBurst, serverRate, cost, now)
}

func (b *budget) room(id matrix.RoomID, cost float64, now time.Time) bool {
	return b.spend("room "+string(id), roomBurst, roomRate, cost, now)
}

func (b *budget) spend(key string, burst, rate, cost float64, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	k, ok := b.buckets[key]
	if !ok {
		if len(b.buckets) >= budgetKeys {
			for other, o := range b.buckets {
				if o.left+now.Sub(o.at).Seconds()*o.rate >= o.burst {
					delete(b.buckets, other)
				}
			}
			if len(b.buckets) >= budgetKeys {
				return false
			}
		}
		k = bucket{left: burst, burst: burst, rate: rate, at: now}
	}
	k.left = min(burst, k.left+max(0, now.Sub(k.at).Seconds())*rate)
	k.at = now
	if k.left >= cost {
		k.left -= cost
		b.buckets[key] = k
		return true
	}
	b.buckets[key] = k
	return false
}
