package account

import (
	"context"
	"slices"
	"sync"

	"hansa/matrix"
	"hansa/policy"
	"hansa/storage"
)

// facts is what policies may know of an account.
func facts(u *storage.User) policy.Facts {
	return policy.Facts{UserID: string(u.ID), Tenant: string(u.Tenant), Kind: u.Kind, Groups: u.Groups, Pools: u.Pools,
		Attributes: u.Attributes, Roles: u.Roles, Admin: u.Admin, Listed: u.Listed, Bridge: u.Appservice}
}

// stranger are the facts about a user that has no account here, on this deployment or another.
func stranger(id matrix.UserID) policy.Facts { return policy.Facts{UserID: string(id)} }

// Party returns the facts about one user of any server. A user without an account is a party, too.
func (s *Service) Party(ctx context.Context, user matrix.UserID) (*policy.Party, error) {
	generation := s.Policy.Generation()
	p, epoch := s.parties.find(user, generation)
	if p != nil {
		return p, nil
	}
	found, err := s.loadParties(ctx, []matrix.UserID{user}, generation, epoch)
	if err != nil {
		return nil, err
	}
	return found[user], nil
}

// Parties returns the facts about many users, each of whom has an entry in the answer. What is not in memory is read at once.
func (s *Service) Parties(ctx context.Context, users []matrix.UserID) (map[matrix.UserID]*policy.Party, error) {
	generation := s.Policy.Generation()
	out := make(map[matrix.UserID]*policy.Party, len(users))
	var missing []matrix.UserID
	first := s.parties.now()
	for _, u := range users {
		if p, _ := s.parties.find(u, generation); p != nil {
			out[u] = p
		} else {
			missing = append(missing, u)
		}
	}
	if len(missing) == 0 {
		return out, nil
	}
	found, err := s.loadParties(ctx, missing, generation, first)
	if err != nil {
		return nil, err
	}
	for u, p := range found {
		out[u] = p
	}
	return out, nil
}

// partiesPage is how many accounts one statement reads.
const partiesPage = 10_000

func (s *Service) loadParties(ctx context.Context, users []matrix.UserID, generation, epoch uint64) (map[matrix.UserID]*policy.Party, error) {
	out := make(map[matrix.UserID]*policy.Party, len(users))
	for page := range slices.Chunk(users, partiesPage) {
		known, err := s.accountsOf(ctx, page)
		if err != nil {
			return nil, err
		}
		for _, id := range page {
			f := stranger(id)
			if u := known[id]; u != nil {
				f = facts(u)
			} else if s.Owner != nil && s.IsLocal(id.Server()) {
				if bridge, ok := s.Owner(id); ok { // what it will be when it is registered
					f.Kind, f.Bridge = KindGhost, bridge
				}
			}
			out[id] = s.Policy.Resolve(f)
		}
	}
	s.parties.put(out, generation, epoch)
	return out, nil
}

// accountsOf reads the accounts that some users have here.
func (s *Service) accountsOf(ctx context.Context, users []matrix.UserID) (map[matrix.UserID]*storage.User, error) {
	var local []matrix.UserID
	for _, u := range users {
		if s.IsLocal(u.Server()) {
			local = append(local, u)
		}
	}
	if len(local) == 0 {
		return nil, nil
	}
	known := make(map[matrix.UserID]*storage.User, len(local))
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		list, err := tx.LoadUsers(local)
		for _, u := range list {
			known[u.ID] = u
		}
		return err
	})
	return known, err
}

// partyCache holds parties by user, all of one generation of the policy.
type partyCache struct {
	max int

	mu         sync.RWMutex
	parties    map[matrix.UserID]*policy.Party // guarded by mu, as is everything below
	generation uint64
	epoch      uint64 // counts drops, so that what was read before one is not kept after it
}

func newPartyCache(most int) *partyCache {
	return &partyCache{max: most, parties: map[matrix.UserID]*policy.Party{}}
}

func (c *partyCache) now() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.epoch
}

func (c *partyCache) find(user matrix.UserID, generation uint64) (*policy.Party, uint64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.generation != generation {
		return nil, c.epoch
	}
	return c.parties[user], c.epoch
}

// put keeps parties unless something was dropped since epoch.
func (c *partyCache) put(list map[matrix.UserID]*policy.Party, generation, epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if generation > c.generation {
		clear(c.parties)
		c.generation = generation
	}
	if c.epoch != epoch || c.generation != generation {
		return
	}
	for id, p := range list {
		if _, known := c.parties[id]; !known && len(c.parties) >= c.max {
			for old := range c.parties {
				delete(c.parties, old)
				break
			}
		}
		c.parties[id] = p
	}
}

func (c *partyCache) drop(user matrix.UserID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	delete(c.parties, user)
}

// PartyOf makes a party of an account as it is stored, whatever is in memory: for followers, which hear of a change before the
// memory of it is gone.
func (s *Service) PartyOf(u *storage.User) *policy.Party { return s.Policy.Resolve(facts(u)) }

// ForgetParties forgets what is known of everybody: names may belong to other application services now.
func (s *Service) ForgetParties() { s.parties.clear() }

func (c *partyCache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	clear(c.parties)
}
