package clientsync

import (
	"sort"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/storage"
)

// memberships sorts the reader's rooms.
func (g *gathering) memberships() error {
	var list []storage.Member
	var err error
	if g.n.first || g.q.FullState {
		list, err = g.tx.LoadUserRooms(g.q.User)
	} else {
		list, err = g.tx.LoadActiveRooms(g.q.User, g.n.since)
	}
	if err != nil {
		return err
	}
	if list, err = g.withReopened(list); err != nil {
		return err
	}
	sort.Slice(list, func(i, j int) bool { return list[i].RoomID < list[j].RoomID })
	var changed []storage.Member
	for _, m := range list {
		if m.Forgotten || g.q.Filter != nil && !g.q.Filter.Room.Room(m.RoomID) {
			continue
		}
		switch {
		case m.Membership == auth.Join && (g.n.first || g.q.FullState || g.q.reopened[m.RoomID]):
			g.fresh = append(g.fresh, m)
		case m.Membership == auth.Join && m.Pos <= g.n.since:
			g.joined = append(g.joined, m)
		case m.Membership == auth.Join:
			changed = append(changed, m)
		case m.Membership == auth.Invite || m.Membership == auth.Knock:
			if m.Pos > g.n.since || g.q.reopened[m.RoomID] {
				g.asked = append(g.asked, m)
			}
		case g.n.first:
			if g.q.Filter != nil && g.q.Filter.Room.IncludeLeave {
				g.gone = append(g.gone, m)
			}
		case m.Pos > g.n.since:
			g.gone = append(g.gone, m)
		}
	}
	return g.sortChanged(changed)
}

// withReopened adds the rooms that were withheld and are open again, and in which nothing has happened since.
func (g *gathering) withReopened(list []storage.Member) ([]storage.Member, error) {
	if len(g.q.reopened) == 0 || g.q.FullState {
		return list, nil
	}
	have := map[matrix.RoomID]bool{}
	for _, m := range list {
		have[m.RoomID] = true
	}
	all, err := g.tx.LoadUserRooms(g.q.User)
	for _, m := range all {
		if g.q.reopened[m.RoomID] && !have[m.RoomID] {
			list = append(list, m)
		}
	}
	return list, err
}

// sortChanged finds out which of the memberships that changed were joins before, too (a new display name).
func (g *gathering) sortChanged(list []storage.Member) error {
	at := make([]matrix.EventID, len(list))
	for i, m := range list {
		at[i] = m.EventID
	}
	was := make([]bool, len(list))
	again := true
	for step := 0; again && step < maxSteps; step++ {
		events, err := g.tx.LoadEvents(at)
		if err != nil {
			return err
		}
		again = false
		for i := range list {
			e := events[at[i]]
			if e == nil {
				at[i] = ""
				continue
			}
			if e.Pos <= g.n.since {
				was[i] = event.Membership(e.Event) == auth.Join
				at[i] = ""
				continue
			}
			if event.Membership(e.Event) != auth.Join || e.Replaces == "" {
				at[i] = "" // not in the room all the time
				continue
			}
			at[i] = e.Replaces
			again = true
		}
	}
	for i, m := range list {
		if at[i] != "" {
			var err error
			if was[i], err = g.stayed(m.RoomID); err != nil {
				return err
			}
		}
		if was[i] {
			g.joined = append(g.joined, m)
		} else {
			g.fresh = append(g.fresh, m)
		}
	}
	return nil
}

// stayed tells the same of one room whose membership has changed many times.
func (g *gathering) stayed(room matrix.RoomID) (bool, error) {
	list, err := g.tx.LoadMemberships(room, g.q.User, g.n.since, g.n.upto, maxRenames)
	if err != nil || len(list) == 0 || len(list) == maxRenames {
		return false, err
	}
	for _, e := range list {
		if event.Membership(e.Event) != auth.Join {
			return false, nil
		}
	}
	before, err := g.tx.LoadEvents([]matrix.EventID{list[0].Replaces})
	e := before[list[0].Replaces]
	return e != nil && event.Membership(e.Event) == auth.Join, err
}

// leaves reads how the reader's stay ended in rooms left since.
func (g *gathering) leaves() error {
	if len(g.gone) == 0 {
		return nil
	}
	last := make([]matrix.EventID, len(g.gone))
	for i, m := range g.gone {
		last[i] = m.EventID
	}
	events, err := g.tx.LoadEvents(last)
	if err != nil {
		return err
	}
	limit := timelineLimit(g.q.Filter)
	for _, m := range g.gone {
		end := events[m.EventID]
		if end == nil {
			continue
		}
		join, left, err := g.tx.LastStay(m)
		if err != nil {
			return err
		}
		if join == 0 {
			// Who is banned from a room that they never had to do with learns nothing of it.
			if asked, err := g.tx.WasAsked(end); err != nil || !asked {
				if err != nil {
					return err
				}
				continue
			}
		}
		if left != nil && left.Pos > g.n.since && !g.n.first {
			if err := g.lostContacts(left); err != nil {
				return err
			}
		}
		r := g.n.room(m.RoomID)
		r.membership, r.own = auth.Leave, newItem(end)
		page, err := g.tx.LoadPage(m.RoomID, end.Pos, storage.Backward, limit) // one a room left: these are few
		if err != nil {
			return err
		}
		seen, err := g.s.Visible(g.tx, g.q.User, page)
		if err != nil {
			return err
		}
		if page, err = g.s.erase(g.tx, g.q.User, page); err != nil {
			return err
		}
		for i := len(page) - 1; i >= 0; i-- {
			// After the stay nothing is told but what became of the reader.
			if e := page[i]; e.Pos > g.n.since && seen[e.ID] && (e.Pos <= pos(left) || e.Is(typeMember, string(g.q.User))) {
				r.timeline = append(r.timeline, newItem(e))
			}
		}
		r.timeline = filterTimeline(r.timeline, g.q.Filter, r.id)
		r.limited = len(page) == limit
		r.prevBatch = end.Pos
		if len(r.timeline) > 0 {
			r.prevBatch = r.timeline[0].Pos - 1
		}
	}
	return nil
}

// lostContacts adds to the device lists those with whom the reader shared a room that was left by an event. Who came later is nobody whom
// the reader has heard of.
func (g *gathering) lostContacts(left *storage.Event) error {
	members, err := g.tx.LoadMembers(left.RoomID)
	if err != nil {
		return err
	}
	for _, o := range members {
		if o.Membership == auth.Join && o.UserID != g.q.User && o.Pos < left.Pos {
			g.n.left[o.UserID] = true
		}
	}
	return nil
}
