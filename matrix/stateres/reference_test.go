package stateres

import (
	"bytes"
	"crypto/sha1"
	"maps"
	"math"
	"slices"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
)

// This file is the text of the specification written down once more, as plainly as possible and on whole states: no
// caches, no batches, no indexes. The tests compare Resolve with it. It shares with Resolve only the authorisation rules, and the
// readings that are marked there with "differs".

type stateMap = map[event.StateKey]matrix.EventID

type idSet = map[matrix.EventID]bool

type reference struct {
	create   *event.Event
	events   map[matrix.EventID]*event.Event
	rejected idSet
	chains   map[matrix.EventID]idSet
}

func (r *reference) resolve(states []stateMap) stateMap {
	if r.create.Version.StateRes == matrix.StateResV1 {
		return r.resolveV1(states)
	}
	unconflicted, conflicted := stateMap{}, idSet{}
	keys := map[event.StateKey]bool{}
	for _, s := range states {
		for k := range s {
			keys[k] = true
		}
	}
	for k := range keys {
		same := true
		for _, s := range states {
			same = same && s[k] == states[0][k]
		}
		if same {
			unconflicted[k] = states[0][k]
			continue
		}
		for _, s := range states {
			if s[k] != "" {
				conflicted[s[k]] = true
			}
		}
	}
	v21 := r.create.Version.StateRes == matrix.StateResV21

	full := maps.Clone(conflicted)
	maps.Copy(full, r.authDifference(states))
	if v21 {
		maps.Copy(full, r.subgraph(conflicted))
	}

	x := r.powerSet(full, v21)
	start := maps.Clone(unconflicted)
	if v21 {
		start = stateMap{}
	}
	partial := r.iterate(start, r.powerOrder(x, v21))
	rest := idSet{}
	for id := range full {
		if !x[id] {
			rest[id] = true
		}
	}
	resolved := r.iterate(partial, r.mainlineOrder(rest, partial[event.StateKey{Type: auth.TypePowerLevels}]))
	maps.Copy(resolved, unconflicted)
	return resolved
}

// chain is the auth chain of an event, without the event.
func (r *reference) chain(id matrix.EventID) idSet {
	if c, ok := r.chains[id]; ok {
		return c
	}
	c := idSet{}
	for _, a := range r.events[id].AuthEvents {
		c[a] = true
		maps.Copy(c, r.chain(a))
	}
	r.chains[id] = c
	return c
}

func (r *reference) authDifference(states []stateMap) idSet {
	union, count := idSet{}, map[matrix.EventID]int{}
	for _, s := range states {
		c := idSet{}
		for _, id := range s {
			c[id] = true
			maps.Copy(c, r.chain(id))
		}
		for id := range c {
			count[id]++
			union[id] = true
		}
	}
	for id := range union {
		if count[id] == len(states) {
			delete(union, id)
		}
	}
	return union
}

func (r *reference) subgraph(conflicted idSet) idSet {
	sub := idSet{}
	for from := range conflicted {
		between := maps.Clone(r.chain(from))
		between[from] = true
		for n := range between {
			for to := range conflicted {
				if n == to || r.chain(n)[to] {
					sub[n] = true
				}
			}
		}
	}
	return sub
}

func (r *reference) isPower(ev *event.Event) bool {
	if ev.Is(auth.TypePowerLevels, "") || ev.Is(auth.TypeJoinRules, "") {
		return true
	}
	m := auth.Membership(ev)
	return ev.Type == auth.TypeMember && (m == "leave" || m == "ban") && string(ev.Sender) != *ev.StateKey
}

// powerSet is taken word by word for version 2.1: the whole auth chain counts.
func (r *reference) powerSet(full idSet, wholeChain bool) idSet {
	x := idSet{}
	var visit func(id matrix.EventID)
	visit = func(id matrix.EventID) {
		x[id] = true
		for _, a := range r.events[id].AuthEvents {
			if full[a] && !x[a] {
				visit(a)
			}
		}
	}
	for id := range full {
		if !r.isPower(r.events[id]) {
			continue
		}
		visit(id)
		for a := range r.chain(id) {
			if wholeChain && full[a] {
				x[a] = true
			}
		}
	}
	return x
}

func (r *reference) levelsOf(id matrix.EventID) *event.Event {
	for _, a := range r.events[id].AuthEvents {
		if r.events[a].Is(auth.TypePowerLevels, "") {
			return r.events[a]
		}
	}
	return nil
}

func (r *reference) senderLevel(id matrix.EventID) auth.Level {
	rules, err := auth.NewRules(r.create, r.levelsOf(id), nil)
	if err != nil {
		return 0
	}
	return rules.UserLevel(r.events[id].Sender)
}

func (r *reference) powerOrder(x idSet, wholeChain bool) []matrix.EventID {
	var sorted []matrix.EventID
	left := maps.Clone(x)
	for len(left) > 0 {
		var best matrix.EventID
		for id := range left {
			before := slices.Clone(r.events[id].AuthEvents)
			if wholeChain {
				before = slices.Collect(maps.Keys(r.chain(id)))
			}
			if slices.ContainsFunc(before, func(a matrix.EventID) bool { return left[a] }) {
				continue
			}
			if best == "" || r.powerLess(id, best) {
				best = id
			}
		}
		sorted = append(sorted, best)
		delete(left, best)
	}
	return sorted
}

func (r *reference) powerLess(x, y matrix.EventID) bool {
	a, b := r.events[x], r.events[y]
	switch lx, ly := r.senderLevel(x), r.senderLevel(y); {
	case lx != ly:
		return lx > ly
	case a.OriginServerTS != b.OriginServerTS:
		return a.OriginServerTS < b.OriginServerTS
	}
	return x < y
}

func (r *reference) iterate(state stateMap, list []matrix.EventID) stateMap {
	state = maps.Clone(state)
	for _, id := range list {
		ev := r.events[id]
		find := func(typ, key string) *event.Event {
			if typ == auth.TypeCreate && key == "" {
				return r.create
			}
			if s := state[event.StateKey{Type: typ, Key: key}]; s != "" {
				return r.events[s]
			}
			for _, a := range ev.AuthEvents {
				if r.events[a].Is(typ, key) && !r.rejected[a] {
					return r.events[a]
				}
			}
			return nil
		}
		if auth.Check(ev, find, func(matrix.ServerName) bool { return true }) == nil {
			state[ev.Key()] = id
		}
	}
	return state
}

func (r *reference) mainlineOrder(set idSet, top matrix.EventID) []matrix.EventID {
	var mainline []matrix.EventID
	for top != "" {
		mainline = append(mainline, top)
		next := r.levelsOf(top)
		if top = ""; next != nil {
			top = next.ID
		}
	}
	position := func(id matrix.EventID) int {
		for p := r.levelsOf(id); p != nil; p = r.levelsOf(p.ID) {
			if i := slices.Index(mainline, p.ID); i >= 0 {
				return i
			}
		}
		return math.MaxInt
	}
	list := slices.Collect(maps.Keys(set))
	slices.SortFunc(list, func(x, y matrix.EventID) int {
		a, b := r.events[x], r.events[y]
		px, py := position(x), position(y)
		switch {
		case px > py:
			return -1
		case px < py:
			return 1
		case a.OriginServerTS != b.OriginServerTS:
			return int(a.OriginServerTS - b.OriginServerTS)
		case x < y:
			return -1
		}
		return 1
	})
	return list
}

func (r *reference) resolveV1(states []stateMap) stateMap {
	result, conflicts := stateMap{}, map[event.StateKey]idSet{}
	for _, s := range states {
		for k, id := range s {
			if conflicts[k] == nil {
				conflicts[k] = idSet{}
			}
			conflicts[k][id] = true
		}
	}
	for k, ids := range conflicts {
		if len(ids) == 1 {
			result[k] = slices.Collect(maps.Keys(ids))[0]
			delete(conflicts, k)
		}
	}
	allowed := func(state stateMap, id matrix.EventID) bool {
		return auth.Check(r.events[id], func(typ, key string) *event.Event {
			if typ == auth.TypeCreate && key == "" {
				return r.create
			}
			return r.events[state[event.StateKey{Type: typ, Key: key}]]
		}, func(matrix.ServerName) bool { return true }) == nil
	}
	ascending := func(ids idSet) []matrix.EventID {
		list := slices.Collect(maps.Keys(ids))
		slices.SortFunc(list, func(x, y matrix.EventID) int {
			if d := r.events[x].Depth - r.events[y].Depth; d != 0 {
				return int(d)
			}
			a, b := sha1.Sum([]byte(x)), sha1.Sum([]byte(y))
			return -bytes.Compare(a[:], b[:])
		})
		return list
	}
	for _, typ := range []string{auth.TypePowerLevels, auth.TypeJoinRules, auth.TypeMember} {
		before := maps.Clone(result)
		for k, ids := range conflicts {
			if k.Type != typ {
				continue
			}
			state := maps.Clone(before)
			for i, id := range ascending(ids) {
				if i > 0 && !allowed(state, id) {
					break
				}
				state[k] = id
			}
			result[k] = state[k]
		}
	}
	final := maps.Clone(result)
	for k, ids := range conflicts {
		if k.Type == auth.TypePowerLevels || k.Type == auth.TypeJoinRules || k.Type == auth.TypeMember {
			continue
		}
		list := ascending(ids)
		final[k] = list[0]
		for _, id := range list {
			if allowed(result, id) {
				final[k] = id
			}
		}
	}
	return final
}
