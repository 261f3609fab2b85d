package clientsync

import (
	"slices"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage"
)

// maxMembers is how many memberships of a room are held in memory for one answer. Those of a larger room are read in pages of crowdPage and
// written one after another, so that the answer is all that grows with the room.
const maxMembers, crowdPage = 1000, 500

// crowd writes the memberships of a large room, as they were when the rest of the answer was read, without those of the timeline and
// those that it has already.
func (a *assembly) crowd(r *roomNews, have map[string]int) error {
	skip := map[matrix.UserID]bool{}
	for _, it := range r.timeline {
		if it.StateKey != nil && it.Type == typeMember {
			skip[matrix.UserID(*it.StateKey)] = true
		}
	}
	var after matrix.UserID
	for start := len(a.dst); ; {
		var events []*storage.Event
		var users []matrix.UserID
		err := a.s.DB.View(a.ctx, func(tx *storage.Tx) (err error) {
			users, events, err = crowdAfter(tx, r, after, a.n.upto)
			return err
		})
		if err != nil || len(users) == 0 {
			return err
		}
		shown, err := a.s.showable(a.ctx, Viewer{User: a.q.User, Party: a.q.Party}, events)
		if err != nil {
			return err
		}
		for _, e := range shown {
			if _, done := have[typeMember+"\x00"+*e.StateKey]; done || skip[matrix.UserID(*e.StateKey)] || !a.wantsState(r.id, e) {
				continue
			}
			if a.dst[len(a.dst)-1] != '[' {
				a.dst = append(a.dst, ',')
			}
			a.dst = a.r.appendEvent(a.dst, newItem(e), "")
		}
		if after == "" { // the rest is about as long as this
			a.dst = slices.Grow(a.dst, (len(a.dst)-start)/len(users)*r.crowd*21/20+a.estimate())
		}
		after = users[len(users)-1]
	}
}

// crowdAfter reads the memberships of some users, in the order of their IDs: those who come after one. What has changed after upto is as
// it was before.
func crowdAfter(tx *storage.Tx, r *roomNews, after matrix.UserID, upto int64) (users []matrix.UserID, events []*storage.Event, err error) {
	list, err := tx.LoadMembersAfter(r.id, after, crowdPage)
	if err != nil || len(list) == 0 {
		return nil, nil, err
	}
	var moved []event.StateKey
	now := make([]matrix.UserID, 0, len(list))
	for _, m := range list {
		if users = append(users, m.UserID); m.Pos > upto {
			moved = append(moved, event.StateKey{Type: typeMember, Key: string(m.UserID)})
		} else {
			now = append(now, m.UserID)
		}
	}
	found, err := tx.LoadMemberEvents([]matrix.RoomID{r.id}, now)
	if err != nil || len(moved) == 0 {
		return users, found[r.id], err
	}
	before, err := tx.LoadStateAt(r.root, moved)
	events = found[r.id]
	for _, e := range before {
		events = append(events, e)
	}
	return users, events, err
}
