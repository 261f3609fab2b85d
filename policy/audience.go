package policy

import (
	"sync"
	"time"
)

// Audience is who is in a room, joined or invited. Its owner keeps it up to date; the engine keeps the audience classes in
// it and what it found out about them. It is safe for use by several goroutines.
type Audience struct {
	mu      sync.Mutex
	members map[string]*Party // guarded by mu, as is everything below
	token   *classToken
	counts  map[uint32]int
	loners  map[string]*Party // members without a class, when there are too many classes
	answers map[audienceKey]audienceAnswer
	minute  int64
}

type audienceKey struct {
	class uint32
	alone bool
}

type audienceAnswer struct {
	allow bool
	err   error
}

// NewAudience returns the audience of the given parties.
func NewAudience(members ...*Party) *Audience {
	a := &Audience{members: make(map[string]*Party, len(members))}
	for _, p := range members {
		a.members[p.ID] = p
	}
	return a
}

// Set adds a party or replaces what was known about it.
func (a *Audience) Set(p *Party) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.members == nil {
		a.members = map[string]*Party{}
	}
	if a.members[p.ID] == p {
		return
	}
	a.members[p.ID] = p
	a.token = nil
}

// Remove takes a party out.
func (a *Audience) Remove(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.members[id]; ok {
		delete(a.members, id)
		a.token = nil
	}
}

// Len is the number of parties.
func (a *Audience) Len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.members)
}

// refresh brings the classes up to date with the snapshot. The caller holds mu.
func (a *Audience) refresh(e *Engine, s *snapshot) {
	if a.token == s.contacts.token {
		return
	}
	counts, loners := map[uint32]int{}, map[string]*Party{}
	for id, p := range a.members {
		if c := s.contacts.class(e.codec, p); c == noClass {
			loners[id] = p
		} else {
			counts[c]++
		}
	}
	a.token, a.counts, a.loners, a.answers = s.contacts.token, counts, loners, map[audienceKey]audienceAnswer{}
}

// AudienceContact says whether p may be together with everybody in the audience: for each of them, one may know of the
// other. p itself may be among them.
func (e *Engine) AudienceContact(p *Party, a *Audience) bool {
	now := e.opts.Now()
	ok, _ := e.audienceContact(e.snapshot(now), p, a, now)
	return ok
}

func (e *Engine) audienceContact(s *snapshot, p *Party, a *Audience, now time.Time) (bool, error) {
	own := s.contacts.class(e.codec, p)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refresh(e, s)
	if s.contacts.reads.clock && a.minute != now.Unix()/60 {
		a.minute = now.Unix() / 60
		clear(a.answers)
	}
	_, inside := a.members[p.ID]
	key := audienceKey{own, inside && a.counts[own] == 1}
	if own != noClass {
		if known, ok := a.answers[key]; ok && len(a.loners) == 0 {
			return known.allow, known.err
		}
	}
	answer := e.askAudience(s, p, own, key.alone, a, now)
	if own != noClass && answer.err == nil {
		a.answers[key] = answer
	}
	return answer.allow, answer.err
}

func (e *Engine) askAudience(s *snapshot, p *Party, own uint32, alone bool, a *Audience, now time.Time) audienceAnswer {
	for c := range a.counts {
		if c == own && alone {
			continue
		}
		there, back := (*verdict)(nil), (*verdict)(nil)
		if own == noClass {
			rep := s.contacts.rep(c)
			there, back = e.contact(s, p, rep, now), e.contact(s, rep, p, now)
		} else {
			there, back = e.contactOf(s, own, c, now), e.contactOf(s, c, own, now)
		}
		if !there.allow && !back.allow {
			return audienceAnswer{false, firstError(there, back)}
		}
	}
	for _, q := range a.loners {
		there, back := e.contact(s, p, q, now), e.contact(s, q, p, now)
		if !there.allow && !back.allow {
			return audienceAnswer{false, firstError(there, back)}
		}
	}
	return audienceAnswer{allow: true}
}

func firstError(a, b *verdict) error {
	if a.err != nil {
		return a.err
	}
	return b.err
}
