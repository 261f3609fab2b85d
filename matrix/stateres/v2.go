package stateres

import (
	"fmt"
	"math"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
)

// resolveV2 is version 2 and, with an empty start and the subgraph, version 2.1.
//
// spec: rooms/v2#algorithm
// spec: rooms/v12#algorithm
func (r *resolver) resolveV2() (map[event.StateKey]matrix.EventID, error) {
	r.empty, r.fallback = r.c.Version.StateRes == matrix.StateResV21, true
	conflicted, err := r.fullConflictedSet()
	if err != nil {
		return nil, err
	}
	if err := r.loadFor(conflicted); err != nil {
		return nil, err
	}
	power := ReverseTopologicalPowerOrder(powerSet(conflicted), r.senderLevel)
	r.check(power)

	picked := make(map[matrix.EventID]struct{}, len(power))
	for _, ev := range power {
		picked[ev.ID] = struct{}{}
	}
	rest := make([]*event.Event, 0, len(conflicted)-len(power))
	for _, ev := range conflicted {
		if _, ok := picked[ev.ID]; !ok {
			rest = append(rest, ev)
		}
	}
	position, err := r.mainline(rest)
	if err != nil {
		return nil, err
	}
	r.check(MainlineOrder(rest, position))
	return r.result(), nil
}

// fullConflictedSet loads the conflicted state set, the auth difference and, in version 2.1, the subgraph.
//
// spec: rooms/v12#definitions
func (r *resolver) fullConflictedSet() ([]*event.Event, error) {
	ids := flatten(r.c.Conflicted)
	ids = append(ids, r.c.AuthDifference...)
	if r.empty {
		ids = append(ids, r.c.Subgraph...)
	}
	if err := r.load(ids); err != nil {
		return nil, err
	}
	seen := make(map[matrix.EventID]struct{}, len(ids))
	list := make([]*event.Event, 0, len(ids))
	for _, id := range ids {
		ev := r.events[id]
		if _, dup := seen[id]; dup || !ev.IsState() {
			continue
		}
		seen[id] = struct{}{}
		list = append(list, ev)
	}
	return list, nil
}

// isPowerEvent tells whether an event might take away somebody's ability to do something.
//
// differs: as all deployed servers have it, power levels and join rules count only with the empty state key; with
// another one they have no meaning.
//
// spec: rooms/v2#definitions
func isPowerEvent(ev *event.Event) bool {
	switch ev.Type {
	case auth.TypePowerLevels, auth.TypeJoinRules:
		return ev.Is(ev.Type, "")
	case auth.TypeMember:
		switch auth.Membership(ev) {
		case auth.Leave, auth.Ban:
			return ev.StateKey != nil && *ev.StateKey != string(ev.Sender)
		}
	}
	return false
}

// powerSet is the set X of the algorithm: the power events, and what is in their auth chains.
//
// differs: the auth chains are followed inside the full conflicted set only, as all deployed servers do. In version 2.1 this
// is the same thing; in version 2 the text would also reach conflicted events by way of unconflicted ones.
func powerSet(conflicted []*event.Event) []*event.Event {
	byID := make(map[matrix.EventID]*event.Event, len(conflicted))
	for _, ev := range conflicted {
		byID[ev.ID] = ev
	}
	seen := make(map[matrix.EventID]struct{})
	var set []*event.Event
	add := func(ev *event.Event) {
		if _, dup := seen[ev.ID]; !dup {
			seen[ev.ID] = struct{}{}
			set = append(set, ev)
		}
	}
	for _, ev := range conflicted {
		if isPowerEvent(ev) {
			add(ev)
		}
	}
	for i := 0; i < len(set); i++ {
		for _, id := range set[i].AuthEvents {
			if a := byID[id]; a != nil {
				add(a)
			}
		}
	}
	return set
}

// senderLevel is the power level of an event's sender by the event's own auth events.
func (r *resolver) senderLevel(ev *event.Event) auth.Level {
	rules := r.rulesOf(r.powerParent(ev), nil)
	if rules == nil {
		return 0
	}
	return rules.UserLevel(ev.Sender)
}

// powerParent is the power levels event among the auth events of ev, which must be loaded; nil where there is none.
func (r *resolver) powerParent(ev *event.Event) *event.Event {
	for _, id := range ev.AuthEvents {
		if a := r.events[id]; a != nil && a.Is(auth.TypePowerLevels, "") {
			return a
		}
	}
	return nil
}

// Unplaced is the mainline position of an event that no power levels event of the mainline authorises.
const Unplaced = math.MaxInt

// mainline computes the mainline of the resolved power levels, and the position of every event in it.
//
// spec: rooms/v2#definitions
func (r *resolver) mainline(list []*event.Event) (func(*event.Event) int, error) {
	index := make(map[matrix.EventID]int)
	top := r.state[event.StateKey{Type: auth.TypePowerLevels}]
	if top == "" && !r.empty {
		top = r.unconflicted(event.StateKey{Type: auth.TypePowerLevels})
	}
	if len(list) == 0 || top == "" {
		return func(*event.Event) int { return Unplaced }, nil
	}
	if r.c.Mainline != nil {
		return r.placed(list, top)
	}
	if err := r.load([]matrix.EventID{top}); err != nil {
		return nil, err
	}
	for p := r.events[top]; p != nil; p = r.powerParent(p) {
		if _, loop := index[p.ID]; loop {
			break
		}
		index[p.ID] = len(index)
		if err := r.load(p.AuthEvents); err != nil {
			return nil, err
		}
	}
	parent, err := r.powerParents(list, index)
	if err != nil {
		return nil, err
	}
	return func(ev *event.Event) int {
		p := r.powerParent(ev)
		for range len(parent) + 1 {
			if p == nil {
				break
			}
			if i, ok := index[p.ID]; ok {
				return i
			}
			p = parent[p.ID]
		}
		return Unplaced
	}, nil
}

// placed is mainline for a caller who knows the positions.
func (r *resolver) placed(list []*event.Event, top matrix.EventID) (func(*event.Event) int, error) {
	var cited []matrix.EventID
	for _, ev := range list {
		if p := r.powerParent(ev); p != nil {
			cited = append(cited, p.ID)
		}
	}
	at, err := r.c.Mainline(top, cited)
	if err != nil {
		return nil, fmt.Errorf("place %d events on the mainline: %w", len(cited), err)
	}
	return func(ev *event.Event) int {
		if p := r.powerParent(ev); p != nil {
			if i, ok := at[p.ID]; ok {
				return i
			}
		}
		return Unplaced
	}, nil
}

// powerParents walks from the power levels events that authorise list back to the mainline, all at the same pace so that
// each step loads one batch. It returns the next power levels event of each one on the way.
func (r *resolver) powerParents(list []*event.Event, mainline map[matrix.EventID]int) (map[matrix.EventID]*event.Event, error) {
	parent := make(map[matrix.EventID]*event.Event)
	for len(list) > 0 {
		var next []*event.Event
		var ids []matrix.EventID
		for _, ev := range list {
			p := r.powerParent(ev)
			if p == nil {
				continue
			}
			if _, done := parent[p.ID]; done {
				continue
			}
			if _, on := mainline[p.ID]; on {
				continue
			}
			parent[p.ID] = nil
			next = append(next, p)
			ids = append(ids, p.AuthEvents...)
		}
		if err := r.load(ids); err != nil {
			return nil, err
		}
		for _, p := range next {
			parent[p.ID] = r.powerParent(p)
		}
		list = next
	}
	return parent, nil
}
