package policy

import (
	"sync"
	"time"
)

// Audience is who is in a room, joined or invited. Its owner keeps it up to date with Add and Remove; the engine counts the
// audience classes in it and remembers what it found out about them. It is safe for use by several goroutines, so that a
// decision may use it while the room changes: the decision is about the audience as it is then.
type Audience struct {
	mu      sync.Mutex
	members map[string]*Party // guarded by mu, as is everything below
	token   *classToken       // of the snapshot that counts is about, nil when nothing was counted
	pending []change          // since counts was made
	counts  map[uint32]int
	answers map[audienceKey]bool
	minute  int64
}

// change is one member that came, went, or is known better.
type change struct{ gone, come *Party }

const maxPending = 1024

// audienceKey is a class that wants to be in the audience; skip is a class that only the newcomer is in, noClass if there is none.
type audienceKey struct{ class, skip uint32 }

// NewAudience returns the audience of the given parties.
func NewAudience(members ...*Party) *Audience {
	a := &Audience{members: make(map[string]*Party, len(members))}
	for _, p := range members {
		a.members[p.ID] = p
	}
	return a
}

// Add adds a party or replaces what was known about it.
func (a *Audience) Add(p *Party) {
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.members[p.ID]
	if old == p {
		return
	}
	a.members[p.ID] = p
	a.note(change{gone: old, come: p})
}

// Remove takes a party out, by its id.
func (a *Audience) Remove(p *Party) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if old := a.members[p.ID]; old != nil {
		delete(a.members, p.ID)
		a.note(change{gone: old})
	}
}

// note keeps a change for the next count. The caller holds mu.
func (a *Audience) note(c change) {
	if a.token == nil {
		return
	}
	if a.pending = append(a.pending, c); len(a.pending) > maxPending {
		a.token, a.pending = nil, nil
	}
}

// Len is the number of parties.
func (a *Audience) Len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.members)
}

// count brings the classes up to date with the snapshot. The caller holds mu. Parties that got no class, because there are
// too many, are counted under noClass.
func (a *Audience) count(e *Engine, s *snapshot) {
	if a.token != s.contacts.token {
		a.token, a.pending, a.counts, a.answers = s.contacts.token, nil, map[uint32]int{}, map[audienceKey]bool{}
		for _, p := range a.members {
			a.counts[s.contacts.class(e.codec, p)]++
		}
		return
	}
	for _, c := range a.pending {
		if c.gone != nil {
			id := s.contacts.class(e.codec, c.gone)
			if a.counts[id]--; a.counts[id] <= 0 {
				delete(a.counts, id)
				clear(a.answers)
			}
		}
		if c.come != nil {
			id := s.contacts.class(e.codec, c.come)
			if a.counts[id]++; a.counts[id] == 1 {
				clear(a.answers)
			}
		}
	}
	a.pending = nil
}

// AudienceContact says whether p may be together with everybody in the audience: for each of them, one may know of the
// other. p itself may be among them. An error means that nobody knows.
func (e *Engine) AudienceContact(p *Party, a *Audience) (bool, error) {
	now := e.opts.Now()
	return e.audienceContact(e.snapshot(now), p, a, now)
}

func (e *Engine) audienceContact(s *snapshot, p *Party, a *Audience, now time.Time) (bool, error) {
	own := s.contacts.class(e.codec, p)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count(e, s)
	if s.contacts.reads.clock && a.minute != now.Unix()/60 {
		a.minute = now.Unix() / 60
		clear(a.answers)
	}
	if own == noClass || a.counts[noClass] > 0 {
		return e.askMembers(s, p, a, now)
	}
	key := audienceKey{own, noClass}
	if known := a.members[p.ID]; known != nil {
		if c := s.contacts.class(e.codec, known); a.counts[c] == 1 {
			key.skip = c
		}
	}
	if ok, found := a.answers[key]; found {
		return ok, nil
	}
	for c := range a.counts {
		if c == key.skip {
			continue
		}
		there, back := e.contactOf(s, own, c, now), e.contactOf(s, c, own, now)
		if there.allow || back.allow {
			continue
		}
		if err := firstError(there, back); err != nil {
			return false, err
		}
		a.answers[key] = false
		return false, nil
	}
	a.answers[key] = true
	return true, nil
}

// askMembers asks about every single member, where there are too many classes to count.
func (e *Engine) askMembers(s *snapshot, p *Party, a *Audience, now time.Time) (bool, error) {
	for _, q := range a.members {
		there := e.contact(s, p, q, now)
		if there.allow {
			continue
		}
		if back := e.contact(s, q, p, now); !back.allow {
			return false, firstError(there, back)
		}
	}
	return true, nil
}

func firstError(a, b *verdict) error {
	if a.err != nil {
		return a.err
	}
	return b.err
}
