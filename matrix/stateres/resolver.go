package stateres

import (
	"fmt"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
)

// resolver is the work of one Resolve.
type resolver struct {
	c      Conflict
	limit  int
	events map[matrix.EventID]*event.Event
	rules  map[rulesKey]*auth.Rules
	// state is what has been resolved so far, above the unconflicted state.
	state map[event.StateKey]matrix.EventID
	// empty is true where the checks begin with an empty state instead of the unconflicted one (version 2.1).
	empty bool
	// fallback is true where an entry that the state lacks is taken from the event's own auth events (version 2).
	fallback bool
}

type rulesKey struct{ powerLevels, joinRules matrix.EventID }

// load makes sure that events are at hand. Missing ones are an error.
func (r *resolver) load(ids []matrix.EventID) error {
	var want []matrix.EventID
	asked := make(map[matrix.EventID]struct{}, len(ids))
	for _, id := range ids {
		if _, dup := asked[id]; dup || r.events[id] != nil {
			continue
		}
		asked[id] = struct{}{}
		want = append(want, id)
	}
	if len(want) == 0 {
		return nil
	}
	if len(r.events)+len(want) > r.limit {
		return fmt.Errorf("%w: more than %d", ErrLimit, r.limit)
	}
	found, err := r.c.Events(want)
	if err != nil {
		return fmt.Errorf("load %d events: %w", len(want), err)
	}
	var missing []matrix.EventID
	for _, id := range want {
		ev := found[id]
		if ev == nil {
			missing = append(missing, id)
			continue
		}
		if ev.RoomID != r.c.Create.RoomID {
			return fmt.Errorf("%w: %s is in %s", ErrForeign, id, ev.RoomID)
		}
		r.events[id] = ev
	}
	if len(missing) > 0 {
		return &MissingError{missing}
	}
	return nil
}

// loadFor loads what checking these events can ask for: their auth events and the entries of the unconflicted state.
func (r *resolver) loadFor(list []*event.Event) error {
	var ids []matrix.EventID
	for _, ev := range list {
		if r.fallback {
			ids = append(ids, ev.AuthEvents...)
		}
		if r.empty {
			continue
		}
		for _, k := range auth.NeededFor(ev) {
			if id := r.unconflicted(k); id != "" {
				ids = append(ids, id)
			}
		}
	}
	return r.load(ids)
}

func (r *resolver) unconflicted(k event.StateKey) matrix.EventID {
	if r.c.Unconflicted == nil {
		return ""
	}
	return r.c.Unconflicted(k)
}

func (r *resolver) rejected(id matrix.EventID) bool { return r.c.Rejected != nil && r.c.Rejected(id) }

// lookup finds an entry for checking ev: in the state so far, else among ev's own auth events.
func (r *resolver) lookup(ev *event.Event, typ, key string) *event.Event {
	k := event.StateKey{Type: typ, Key: key}
	if id, ok := r.state[k]; ok {
		return r.events[id]
	}
	if !r.empty {
		if id := r.unconflicted(k); id != "" {
			return r.events[id]
		}
	}
	if r.fallback {
		for _, id := range ev.AuthEvents {
			if a := r.events[id]; a != nil && a.Is(typ, key) && !r.rejected(id) {
				return a
			}
		}
	}
	return nil
}

// facts answers the questions of a check from the resolver's state.
type facts struct {
	r  *resolver
	ev *event.Event
}

func (f facts) Membership(user matrix.UserID) string {
	return auth.Membership(f.r.lookup(f.ev, auth.TypeMember, string(user)))
}

func (f facts) ThirdPartyInvite(token string) *event.Event {
	return f.r.lookup(f.ev, auth.TypeThirdPartyInvite, token)
}

// SignedBy is true: an event without the signature was rejected on receipt, whatever the state.
func (f facts) SignedBy(matrix.ServerName) bool { return true }

// allowed tells whether the rules allow an event in the state so far. A state that cannot be read allows nothing.
func (r *resolver) allowed(ev *event.Event) bool {
	levels := r.lookup(ev, auth.TypePowerLevels, "")
	var joinRules *event.Event
	if ev.Type == auth.TypeMember {
		joinRules = r.lookup(ev, auth.TypeJoinRules, "")
	}
	rules := r.rulesOf(levels, joinRules)
	return rules != nil && rules.Check(ev, facts{r, ev}) == nil
}

// rulesOf makes the rules of a pair of events once. It is nil where they cannot be read.
func (r *resolver) rulesOf(powerLevels, joinRules *event.Event) *auth.Rules {
	var k rulesKey
	if powerLevels != nil {
		k.powerLevels = powerLevels.ID
	}
	if joinRules != nil {
		k.joinRules = joinRules.ID
	}
	rules, ok := r.rules[k]
	if !ok {
		var err error
		if rules, err = auth.NewRules(r.c.Create, powerLevels, joinRules); err != nil {
			rules = nil
		}
		r.rules[k] = rules
	}
	return rules
}

// check runs the iterative auth checks: each event that the rules allow becomes part of the state.
func (r *resolver) check(list []*event.Event) {
	for _, ev := range list {
		if r.allowed(ev) {
			r.state[ev.Key()] = ev.ID
		}
	}
}

// result is the state so far without the entries that the unconflicted state has.
func (r *resolver) result() map[event.StateKey]matrix.EventID {
	for k := range r.state {
		if r.unconflicted(k) != "" {
			delete(r.state, k)
		}
	}
	return r.state
}
