package storage

import (
	"hansa/matrix"
	"hansa/matrix/event"
)

// maxTurns is how many memberships are followed back to find the newest stay.
const maxTurns = 20

// LastStay finds the position of the newest join that led to a membership, 0 where there was none, and the event by which that stay
// ended, nil while it goes on. What came after the end, such as a ban or another invitation, does not count.
func (tx *Tx) LastStay(m Member) (join int64, end *Event, err error) {
	if m.Membership == "join" {
		return m.Pos, nil, nil
	}
	for id, step := m.EventID, 0; id != "" && step < maxTurns; step++ {
		found, err := tx.LoadEvents([]matrix.EventID{id})
		if err != nil {
			return 0, nil, err
		}
		e := found[id]
		switch {
		case e == nil:
			return 0, nil, nil
		case event.Membership(e.Event) == "join":
			return e.Pos, end, nil
		}
		end, id = e, e.Replaces
	}
	return 0, nil, nil
}

// WasAsked tells whether somebody had to do with a room before a membership event: was invited, or knocked.
func (tx *Tx) WasAsked(e *Event) (bool, error) {
	for id, step := e.Replaces, 0; id != "" && step < maxTurns; step++ {
		found, err := tx.LoadEvents([]matrix.EventID{id})
		if err != nil || found[id] == nil {
			return false, err
		}
		switch event.Membership(found[id].Event) {
		case "invite", "knock":
			return true, nil
		}
		id = found[id].Replaces
	}
	return false, nil
}
