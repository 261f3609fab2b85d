package clientsync

import (
	"context"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/policy"
	"hansa/storage"
)

// maxLazy is how many rooms' worth of lazy-loaded members this node remembers for a device.
const maxLazy = 200

func (s *Service) isMember(ctx context.Context, id matrix.RoomID, user matrix.UserID) bool {
	joined := false
	err := s.Rooms.Look(ctx, id, func(v room.View) { joined = v.Membership(user) == auth.Join })
	return err == nil && joined
}

// lazyUsers lists whose memberships a client that loads members lazily needs with a room: those who speak in the timeline and whom it
// was not given before, and the reader in a room that is new.
//
// spec: client-server-api#lazy-loading-room-members
func (a *assembly) lazyUsers(r *roomNews) []matrix.UserID {
	a.b.mu.Lock()
	defer a.b.mu.Unlock()
	given := a.d.members[r.id]
	if r.newly || a.q.Filter.Room.State.IncludeRedundantMembers {
		given = nil
	}
	seen := map[matrix.UserID]bool{}
	var out []matrix.UserID
	add := func(u matrix.UserID) {
		if _, ok := given[u]; !ok && !seen[u] {
			seen[u] = true
			out = append(out, u)
		}
	}
	for _, it := range r.timeline {
		add(it.Sender)
	}
	if r.newly {
		add(a.q.User)
		if r.summary != nil {
			for _, h := range r.summary.heroes {
				add(h)
			}
		}
	}
	return out
}

func (a *assembly) loadMembers(tx *storage.Tx, lazy map[matrix.RoomID][]matrix.UserID) error {
	if len(lazy) == 0 {
		return nil
	}
	var rooms []matrix.RoomID
	all := map[matrix.UserID]bool{}
	for id, users := range lazy {
		rooms = append(rooms, id)
		if r := a.n.rooms[id]; r.newly && r.summary != nil {
			lazy[id] = append(users, r.summary.heroes...)
		}
		for _, u := range lazy[id] {
			all[u] = true
		}
	}
	users := make([]matrix.UserID, 0, len(all))
	for u := range all {
		users = append(users, u)
	}
	found, err := tx.LoadMemberEvents(rooms, users)
	if err != nil {
		return err
	}
	a.members = map[matrix.RoomID]map[matrix.UserID]*storage.Event{}
	a.b.mu.Lock()
	defer a.b.mu.Unlock()
	if len(a.d.members) > maxLazy {
		clear(a.d.members)
	}
	for id, users := range lazy {
		wanted := map[matrix.UserID]bool{}
		for _, u := range users {
			wanted[u] = true
		}
		a.members[id] = map[matrix.UserID]*storage.Event{}
		if a.d.members[id] == nil {
			a.d.members[id] = map[matrix.UserID]matrix.EventID{}
		}
		for _, e := range found[id] {
			u := matrix.UserID(*e.StateKey)
			if !wanted[u] {
				continue
			}
			if shown := a.contacts.Show(a.ctx, e); shown != nil {
				a.members[id][u] = shown
				a.d.members[id][u] = e.ID
			}
		}
	}
	return nil
}

// summary is what a client needs to name a room that has no name.
//
// spec: client-server-api#calculating-the-display-name-for-a-room
type summary struct {
	heroes          []matrix.UserID
	joined, invited int
}

const heroes = 5

// unseen counts, for each of some rooms, the people of other servers whom the reader may not know of: they are no part of what the reader is
// told of the room.
func (a *assembly) unseen(rooms []matrix.RoomID) (map[matrix.RoomID]storage.MemberCounts, error) {
	out := make(map[matrix.RoomID]storage.MemberCounts, len(rooms))
	for _, id := range rooms {
		n, err := a.s.Rooms.Unseen(a.ctx, id, func(p *policy.Party) bool {
			return a.s.Policy.Contact(a.contacts.viewer, p) || a.s.Policy.Contact(p, a.contacts.viewer)
		})
		if err != nil {
			return nil, err
		}
		out[id] = n
	}
	return out, nil
}

func (a *assembly) loadSummaries(tx *storage.Tx, rooms []matrix.RoomID, unseen map[matrix.RoomID]storage.MemberCounts) error {
	if len(rooms) == 0 {
		return nil
	}
	counts, err := tx.LoadMemberCounts(rooms)
	if err != nil {
		return err
	}
	first, err := tx.LoadHeroes(rooms, a.q.User, 3*heroes)
	if err != nil {
		return err
	}
	for _, id := range rooms {
		sum := &summary{joined: max(0, counts[id].Joined-unseen[id].Joined), invited: max(0, counts[id].Invited-unseen[id].Invited)}
		for _, m := range first[id] {
			if len(sum.heroes) < heroes && a.contacts.May(a.ctx, m.UserID) {
				sum.heroes = append(sum.heroes, m.UserID)
			}
		}
		a.n.rooms[id].summary = sum
	}
	return nil
}

func (a *assembly) summary(r *roomNews) {
	if r.summary == nil {
		return
	}
	list := []string{}
	for _, u := range r.summary.heroes {
		list = append(list, string(u))
	}
	a.dst = append(a.dst, `,"summary":`...)
	a.dst = append(a.dst, mustJSON(map[string]any{"m.heroes": list, "m.joined_member_count": r.summary.joined, "m.invited_member_count": r.summary.invited})...)
}
