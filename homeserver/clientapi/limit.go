package clientapi

import (
	"net/http"
	"time"

	"hansa/homeserver/ratelimit"
	"hansa/matrix"
	"hansa/policy"
)

// limits bound how fast one user makes the server write, whatever the device. What is generous for a person and enough for a bot
// keeps a client that has gone mad, or is meant to harm, from taking the server away from the others.
type limits struct {
	// sends are events, keys what makes others' devices work: queries, claims, to-device messages. writes are all other changes.
	sends, keys, writes *ratelimit.Buckets
}

func newLimits(now func() time.Time) *limits {
	return &limits{sends: ratelimit.New(300, 40*time.Millisecond, now), keys: ratelimit.New(600, 50*time.Millisecond, now),
		writes: ratelimit.New(600, 50*time.Millisecond, now)}
}

// charge counts a request that changes something, or refuses it.
//
// spec: client-server-api#rate-limiting
func (l *limits) charge(rt *route, user matrix.UserID) error {
	if l == nil || rt.method == http.MethodGet {
		return nil
	}
	b := l.writes
	switch rt.point {
	case policy.EventSend, policy.EventRedact, policy.RoomState:
		b = l.sends
	case policy.KeysQuery, policy.KeysClaim, policy.KeysSign, policy.ToDeviceSend:
		b = l.keys
	}
	if wait, ok := b.Take(string(user)); !ok {
		return ratelimit.TooMany(wait)
	}
	return nil
}
