package policy

import (
	"context"
	"time"
)

// Contact says whether a may know of b: be told that b exists, see b's profile, reach b. Everybody may know of oneself. It
// is a look-up; only the first pair of two classes is evaluated.
func (e *Engine) Contact(a, b *Party) bool {
	now := e.opts.Now()
	v := e.contact(e.snapshot(now), a, b, now)
	e.metrics.contact(v.allow)
	return v.allow
}

// ContactDecision is Contact with reasons. Like every question that only filters it is counted, not recorded.
func (e *Engine) ContactDecision(a, b *Party) Decision {
	now := e.opts.Now()
	s := e.snapshot(now)
	v := e.contact(s, a, b, now)
	e.metrics.contact(v.allow)
	return e.decision(s, Contact, v, false)
}

func self(a, b *Party) bool { return a == b || a.ID != "" && a.ID == b.ID && a.Kind != "anonymous" }

func (e *Engine) contact(s *snapshot, a, b *Party, now time.Time) *verdict {
	if a == nil || b == nil {
		return failed(ErrEvaluation)
	}
	if self(a, b) {
		return e.yes
	}
	m := s.contacts
	ia, ib := m.class(e.codec, a), m.class(e.codec, b)
	if ia == noClass || ib == noClass {
		return e.evaluateContact(s, m.reads.project(e.codec, a), m.reads.project(e.codec, b), now)
	}
	return e.contactOf(s, ia, ib, now)
}

func (e *Engine) contactOf(s *snapshot, a, b uint32, now time.Time) *verdict {
	m := s.contacts
	minute := int64(0)
	if m.reads.clock {
		minute = now.Unix()/60 + 1
	}
	if v := m.get(a, b, minute); v != nil {
		return v
	}
	v := e.evaluateContact(s, m.rep(a), m.rep(b), now)
	if v.err == nil {
		v.minute = minute
		m.put(a, b, v)
	}
	return v
}

// evaluateContact asks the contact rules of both tenants about two parties that carry only what makes their classes.
func (e *Engine) evaluateContact(s *snapshot, a, b *Party, now time.Time) *verdict {
	f := e.frame(&Input{Point: Contact, Time: now, Subject: a, Target: b})
	defer e.release(f)
	f.ask(s, a.Tenant)
	f.ask(s, b.Tenant)
	if len(f.asked) == 0 {
		return &verdict{allow: true} // two strangers: nobody here to ask
	}
	v := e.evaluate(context.Background(), s, f, nil)
	return v
}

// Reachable returns those of the class keys whose users the viewer may know of, for a query that filters before it limits.
// Keys of another scheme and keys that are unsound are left out.
func (e *Engine) Reachable(viewer *Party, keys []string) []string {
	now := e.opts.Now()
	s := e.snapshot(now)
	out := make([]string, 0, len(keys))
	from := s.contacts.class(e.codec, viewer)
	for _, key := range keys {
		id, ok := s.contacts.classOfKey(e.codec, key)
		if !ok {
			continue
		}
		var v *verdict
		if from == noClass {
			v = e.evaluateContact(s, s.contacts.reads.project(e.codec, viewer), s.contacts.rep(id), now)
		} else {
			v = e.contactOf(s, from, id, now)
		}
		e.metrics.contact(v.allow)
		if v.allow {
			out = append(out, key)
		}
	}
	return out
}
