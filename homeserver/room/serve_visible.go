package room

import (
	"slices"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/storage"
	"hansa/storage/statemap"
)

// The values of the history visibility that keep events from those who were not there.
const (
	visibleInvited = "invited"
	visibleJoined  = "joined"
)

// visibleUsers is how many users of a server are looked up at once to find one who was in the room.
const visibleUsers = 100

// visible tells which events a server may read in full: those that one of its users could read by the history visibility and the
// membership at the event, and what they themselves did or was done to them.
//
// spec: client-server-api#room-history-visibility
func (r *reading) visible(events []*storage.Event) (map[matrix.EventID]bool, error) {
	out := make(map[matrix.EventID]bool, len(events))
	err := r.s.DB.Read(r.ctx, func(tx *storage.Tx) error {
		settings, err := r.settings(tx, events)
		if err != nil {
			return err
		}
		was := map[presence]bool{}
		for _, e := range events {
			switch {
			case e.Flags&storage.Outlier != 0:
				out[e.ID] = e.StateKey != nil // part of the proof that others are allowed, with no place in the history
			case e.Sender.Server() == r.server, e.StateKey != nil && e.Type == typeMember && matrix.UserID(*e.StateKey).Server() == r.server:
				out[e.ID] = true
			case e.StateRoot == (statemap.Hash{}):
				out[e.ID] = false // who was there is not known
			default:
				if out[e.ID], err = r.mayRead(tx, e, settings[e.ID], was); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return out, err
}

// presence asks whether a server had somebody in a room in a state, as far as a history visibility wants it.
type presence struct {
	state      statemap.Hash
	visibility string
}

// mayRead answers for one event, by each of the settings that hold at it.
func (r *reading) mayRead(tx *storage.Tx, e *storage.Event, settings []string, was map[presence]bool) (bool, error) {
	for _, v := range settings {
		if v != visibleInvited && v != visibleJoined {
			return true, nil
		}
		p := presence{e.StateRoot, v}
		yes, asked := was[p]
		if !asked {
			var err error
			if yes, err = r.wasThere(tx, p); err != nil {
				return false, err
			}
			was[p] = yes
		}
		if yes {
			return true, nil
		}
	}
	return false, nil
}

// settings returns the history visibility at each event; an event that changes it is judged by the old and the new one.
func (r *reading) settings(tx *storage.Tx, events []*storage.Event) (map[matrix.EventID][]string, error) {
	key := event.StateKey{Type: typeHistory}
	at := map[statemap.Hash]matrix.EventID{}
	loader := r.s.NodesIn(tx)
	var ids []matrix.EventID
	for _, e := range events {
		if _, ok := at[e.StateRoot]; !ok {
			id, err := statemap.Get(loader, e.StateRoot, key)
			if err != nil {
				return nil, err
			}
			at[e.StateRoot] = id
			ids = append(ids, id)
		}
		if e.Is(typeHistory, "") {
			ids = append(ids, e.Replaces)
		}
	}
	found, err := tx.LoadEvents(slices.DeleteFunc(ids, func(id matrix.EventID) bool { return id == "" }))
	if err != nil {
		return nil, err
	}
	out := make(map[matrix.EventID][]string, len(events))
	for _, e := range events {
		out[e.ID] = []string{visibilityOf(found[at[e.StateRoot]])}
		if e.Is(typeHistory, "") {
			out[e.ID] = append(out[e.ID], visibilityOf(found[e.Replaces]))
		}
	}
	return out, nil
}

// visibilityOf reads a history visibility; where there is none, it is shared.
func visibilityOf(e *storage.Event) string {
	if e == nil {
		return "shared"
	}
	v, _ := event.ContentString(e.Event, "history_visibility")
	return v
}

// wasThere tells whether a user of the server was joined, or invited where that is enough.
func (r *reading) wasThere(tx *storage.Tx, p presence) (bool, error) {
	loader := r.s.NodesIn(tx)
	for some := range slices.Chunk(r.users, visibleUsers) {
		keys := make([]event.StateKey, len(some))
		for i, u := range some {
			keys[i] = event.StateKey{Type: typeMember, Key: string(u)}
		}
		at, err := statemap.GetMany(loader, p.state, keys)
		if err != nil {
			return false, err
		}
		ids := make([]matrix.EventID, 0, len(at))
		for _, id := range at {
			ids = append(ids, id)
		}
		found, err := tx.LoadEvents(ids)
		if err != nil {
			return false, err
		}
		for _, e := range found {
			if m := event.Membership(e.Event); m == auth.Join || m == auth.Invite && p.visibility == visibleInvited {
				return true, nil
			}
		}
	}
	return false, nil
}
