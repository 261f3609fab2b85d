package room

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"hansa/matrix"
	"hansa/policy"
)

// crowd is who is present in a room, joined or invited, as policy sees it: by audience class, by pool and by server. It is made
// when policy first asks and follows membership changes from then on.
type crowd struct {
	audience *policy.Audience
	// own are those of the audience whose servers this deployment hosts.
	own     *policy.Audience
	parties map[matrix.UserID]*policy.Party
	pools   map[string]int
	servers map[string]int
	// generation is that of the policy set that the parties were made under.
	generation uint64
}

func newCrowd() *crowd {
	return &crowd{audience: policy.NewAudience(), own: policy.NewAudience(), parties: map[matrix.UserID]*policy.Party{}, pools: map[string]int{}, servers: map[string]int{}}
}

func (c *crowd) add(user matrix.UserID, p *policy.Party) {
	c.remove(user)
	c.parties[user] = p
	c.audience.Add(p)
	if p.Local {
		c.own.Add(p)
	}
	for _, pool := range p.Pools {
		c.pools[pool]++
	}
	c.servers[p.Tenant]++
}

func (c *crowd) remove(user matrix.UserID) {
	p, ok := c.parties[user]
	if !ok {
		return
	}
	delete(c.parties, user)
	c.audience.Remove(p)
	c.own.Remove(p)
	for _, pool := range p.Pools {
		if c.pools[pool]--; c.pools[pool] == 0 {
			delete(c.pools, pool)
		}
	}
	if c.servers[p.Tenant]--; c.servers[p.Tenant] == 0 {
		delete(c.servers, p.Tenant)
	}
}

// gather brings the room's crowd up to date. The caller holds l.mu.
func (s *Service) gather(ctx context.Context, l *live) error {
	var want []matrix.UserID
	if g := s.Policy.Generation(); l.crowd == nil || l.crowd.generation != g {
		l.crowd, l.facts = newCrowd(), nil
		l.crowd.generation = g
		for user, m := range l.members {
			if isPresent(m.membership) {
				want = append(want, user)
			}
		}
	} else {
		for user := range l.moved {
			if isPresent(l.members[user].membership) {
				want = append(want, user)
			} else {
				l.crowd.remove(user)
			}
		}
	}
	if len(want) > 0 {
		parties, err := s.Parties.Parties(ctx, want)
		if err != nil {
			l.crowd = nil
			return fmt.Errorf("who is in %s: %w", l.id, err)
		}
		for _, user := range want {
			if p := parties[user]; p != nil {
				l.crowd.add(user, p)
			}
		}
	}
	clear(l.moved)
	return nil
}

// ForgetParty makes every room in memory look a user's facts up again, after they changed.
func (s *Service) ForgetParty(user matrix.UserID) {
	s.mu.Lock()
	var all []*live
	for _, e := range s.rooms {
		all = append(all, e.Value.(*live))
	}
	s.mu.Unlock()
	for _, l := range all {
		select {
		case <-l.loaded:
		default:
			continue
		}
		l.mu.Lock()
		if l.err == nil && l.crowd != nil && l.crowd.parties[user] != nil {
			l.moved[user] = struct{}{}
			l.epoch++
			l.facts = nil
		}
		l.mu.Unlock()
	}
}

func sortedKeys(m map[string]int) []string { return slices.Sorted(maps.Keys(m)) }
