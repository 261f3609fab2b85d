// Package stateres resolves the state of a room where its history forks: version 1 for rooms of version 1, version 2 for
// rooms 2 to 11, version 2.1 for rooms of version 12.
//
// It is fed the conflict alone. A Conflict names the entries of state in which the forks differ, the auth difference
// and, for version 2.1, the conflicted state subgraph; entries on which all forks agree are asked for one by one through
// Unconflicted, and events are loaded through Events in few large batches. So the cost depends on the fork and not on
// the size of the room. Split, AuthDifference and ConflictedSubgraph make the parts of a Conflict from what a caller has;
// ResolveStates does everything for whole state maps, where these are small or at hand anyway.
//
// All walks are iterative, keep a set of what they have seen and are bounded: ErrLimit is an error, never a wrong answer.
// The result depends on the sets of events alone, not on any order in which they are given.
//
// Events whose authorisation failed against their own auth events must not be part of a Conflict; those that failed
// against the state before them, and those that failed softly, take part like any other. Signatures of
// authorising servers are taken as verified on receipt.
//
// spec: server-server-api#room-state-resolution
// spec: rooms/v1#state-resolution
// spec: rooms/v2#state-resolution
// spec: rooms/v12#state-resolution
package stateres

import (
	"errors"
	"fmt"
	"slices"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
)

// DefaultLimit is how many events one resolution or one walk may load where the caller sets no limit.
const DefaultLimit = 200_000

var (
	// ErrLimit is wrapped where a walk would load more events than allowed.
	ErrLimit = errors.New("stateres: too many events")
	// ErrForeign is wrapped where an event belongs to another room than the create event.
	ErrForeign = errors.New("stateres: event of another room")
)

// MissingError names events that the caller's functions did not bring. Resolving without them could give another answer
// than other servers have, so they must be found first.
type MissingError struct{ IDs []matrix.EventID }

// Error implements the error interface.
func (e *MissingError) Error() string {
	return fmt.Sprintf("stateres: %d events missing, the first is %s", len(e.IDs), e.IDs[0])
}

// Conflict is what Resolve needs to know about a fork.
type Conflict struct {
	Version *matrix.RoomVersion
	// Create is the create event of the room.
	Create *event.Event
	// Conflicted holds, for each entry that is not the same in all forks (also where it is missing in some), the distinct
	// events that the forks have for it.
	Conflicted map[event.StateKey][]matrix.EventID
	// Unconflicted finds the event of an entry on which all forks agree; empty where there is none, and for every entry
	// of Conflicted.
	Unconflicted func(event.StateKey) matrix.EventID
	// AuthDifference holds the events that are in the auth chains of some forks but not of all: see AuthDifference. Not
	// used by version 1.
	AuthDifference []matrix.EventID
	// Subgraph is the conflicted state subgraph: see ConflictedSubgraph. Used by version 2.1 only.
	Subgraph []matrix.EventID
	// Events loads events. It is called a few times with many IDs. Events may come that were not asked for.
	Events func([]matrix.EventID) (map[matrix.EventID]*event.Event, error)
	// Rejected tells whether an auth event was rejected; nil means that none was.
	Rejected func(matrix.EventID) bool
	// Mainline, where it is not nil, places power levels events on the mainline of another one, as Chains.Mainline does: then the mainline is
	// not walked event by event.
	Mainline func(top matrix.EventID, list []matrix.EventID) (map[matrix.EventID]int, error)
	// Limit bounds how many events are loaded; 0 stands for DefaultLimit.
	Limit int
}

// Resolve returns the entries of the resolved state beyond those on which all forks agree. An entry of Conflicted that
// is missing in the result is not set in the resolved state.
func Resolve(c Conflict) (map[event.StateKey]matrix.EventID, error) {
	if c.Version == nil || c.Create == nil || c.Events == nil {
		return nil, errors.New("stateres: a conflict needs a version, a create event and a way to load events")
	}
	if len(c.Conflicted) == 0 {
		return map[event.StateKey]matrix.EventID{}, nil
	}
	r := &resolver{
		c: c, limit: c.Limit,
		events: map[matrix.EventID]*event.Event{c.Create.ID: c.Create},
		rules:  make(map[rulesKey]*auth.Rules),
		state:  make(map[event.StateKey]matrix.EventID, len(c.Conflicted)),
	}
	if r.limit <= 0 {
		r.limit = DefaultLimit
	}
	switch c.Version.StateRes {
	case matrix.StateResV1:
		return r.resolveV1()
	case matrix.StateResV2, matrix.StateResV21:
		return r.resolveV2()
	}
	return nil, fmt.Errorf("stateres: room version %s has no known algorithm", c.Version.ID)
}

// ResolveStates resolves whole state maps into one. graph is the auth graph, as AuthDifference wants it.
func ResolveStates(
	create *event.Event, states []map[event.StateKey]matrix.EventID, graph Graph,
	events func([]matrix.EventID) (map[matrix.EventID]*event.Event, error), rejected func(matrix.EventID) bool,
) (map[event.StateKey]matrix.EventID, error) {
	unconflicted, conflicted := Split(states)
	if len(conflicted) == 0 {
		return unconflicted, nil
	}
	c := Conflict{
		Version: create.Version, Create: create, Conflicted: conflicted,
		Unconflicted: func(k event.StateKey) matrix.EventID { return unconflicted[k] },
		Events:       events, Rejected: rejected,
	}
	if create.Version.StateRes != matrix.StateResV1 {
		sets := make([][]matrix.EventID, len(states))
		for i, s := range states {
			for _, id := range s {
				sets[i] = append(sets[i], id)
			}
		}
		var err error
		if c.AuthDifference, err = AuthDifference(sets, nil, graph, 0); err != nil {
			return nil, err
		}
	}
	if create.Version.StateRes == matrix.StateResV21 {
		var err error
		if c.Subgraph, err = ConflictedSubgraph(flatten(conflicted), graph, 0); err != nil {
			return nil, err
		}
	}
	resolved, err := Resolve(c)
	if err != nil {
		return nil, err
	}
	for k, id := range resolved {
		unconflicted[k] = id
	}
	return unconflicted, nil
}

func flatten(conflicted map[event.StateKey][]matrix.EventID) []matrix.EventID {
	var ids []matrix.EventID
	for _, list := range conflicted {
		ids = append(ids, list...)
	}
	return ids
}

// Split divides state maps into what is the same in all of them and the rest, with the distinct events of each entry in
// ascending order.
func Split(states []map[event.StateKey]matrix.EventID) (
	unconflicted map[event.StateKey]matrix.EventID, conflicted map[event.StateKey][]matrix.EventID,
) {
	unconflicted = make(map[event.StateKey]matrix.EventID)
	conflicted = make(map[event.StateKey][]matrix.EventID)
	count := make(map[event.StateKey]int)
	for _, state := range states {
		for k, id := range state {
			count[k]++
			if list := conflicted[k]; !slices.Contains(list, id) {
				conflicted[k] = append(list, id)
			}
		}
	}
	for k, list := range conflicted {
		if len(list) == 1 && count[k] == len(states) {
			unconflicted[k] = list[0]
			delete(conflicted, k)
			continue
		}
		slices.Sort(list)
	}
	return unconflicted, conflicted
}
