package stateres

import (
	"bytes"
	"cmp"
	"crypto/sha1"
	"slices"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
)

// resolveV1 is version 1: power levels, then join rules, then memberships, each by depth; everything else takes the
// newest event that is allowed.
//
// spec: rooms/v1#state-resolution
func (r *resolver) resolveV1() (map[event.StateKey]matrix.EventID, error) {
	var list []*event.Event
	if err := r.load(flatten(r.c.Conflicted)); err != nil {
		return nil, err
	}
	var keys []event.StateKey
	for k, ids := range r.c.Conflicted {
		if len(ids) == 1 {
			// No conflict in the sense of version 1: the forks that have the entry agree on it.
			r.state[k] = ids[0]
			continue
		}
		keys = append(keys, k)
		for _, id := range ids {
			list = append(list, r.events[id])
		}
	}
	if err := r.loadFor(list); err != nil {
		return nil, err
	}
	for _, typ := range []string{auth.TypePowerLevels, auth.TypeJoinRules, auth.TypeMember} {
		// The entries of one type do not see each other's result, so that their order does not matter.
		resolved := make(map[event.StateKey]matrix.EventID)
		for _, k := range keys {
			if k.Type == typ {
				resolved[k] = r.oldestFirst(k)
				delete(r.state, k)
			}
		}
		for k, id := range resolved {
			r.state[k] = id
		}
	}
	others := make(map[event.StateKey]matrix.EventID)
	for _, k := range keys {
		switch k.Type {
		case auth.TypePowerLevels, auth.TypeJoinRules, auth.TypeMember:
		default:
			others[k] = r.newestAllowed(k)
		}
	}
	for k, id := range others {
		r.state[k] = id
	}
	return r.result(), nil
}

// oldestFirst begins with the oldest event of an entry and goes on to the next one as long as it is allowed. It leaves
// its choice in the state.
func (r *resolver) oldestFirst(k event.StateKey) matrix.EventID {
	list := r.byDepth(k)
	r.state[k] = list[0].ID
	for _, ev := range list[1:] {
		if !r.allowed(ev) {
			break
		}
		r.state[k] = ev.ID
	}
	return r.state[k]
}

// newestAllowed takes the newest event of an entry that is allowed.
//
// differs: where none is allowed the text is silent; as all deployed servers do, the oldest is taken then.
func (r *resolver) newestAllowed(k event.StateKey) matrix.EventID {
	list := r.byDepth(k)
	for i := len(list) - 1; i > 0; i-- {
		if r.allowed(list[i]) {
			return list[i].ID
		}
	}
	return list[0].ID
}

// byDepth sorts the events of an entry by ascending depth, then by descending SHA-1 of their IDs.
func (r *resolver) byDepth(k event.StateKey) []*event.Event {
	list := make([]*event.Event, 0, len(r.c.Conflicted[k]))
	for _, id := range r.c.Conflicted[k] {
		list = append(list, r.events[id])
	}
	slices.SortFunc(list, func(a, b *event.Event) int {
		if c := cmp.Compare(a.Depth, b.Depth); c != 0 {
			return c
		}
		x, y := sha1.Sum([]byte(a.ID)), sha1.Sum([]byte(b.ID))
		return bytes.Compare(y[:], x[:])
	})
	return list
}
