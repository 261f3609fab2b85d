package directory

import (
	"context"
	"errors"
	"slices"
	"time"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/policy"
	"hansa/storage"
)

// seeker is one request to be told of rooms, and what was found out for it.
type seeker struct {
	s *Service
	c Caller
	// as is the tenant in whose name is sought: the user's own, or the one that another server asks.
	as      matrix.ServerName
	reach   *reach
	tenants map[matrix.ServerName]bool          // other tenants that agree to have to do with the caller's
	known   map[matrix.UserID]bool              // people of whom the caller may know
	asked   map[matrix.RoomID]matrix.ServerName // invitations into rooms elsewhere and who has them; nil until they are looked up
	asks    int                                 // requests of other servers so far
	until   time.Time                           // when no more are made
}

func (s *Service) seeker(c Caller, as matrix.ServerName) *seeker {
	return &seeker{s: s, c: c, as: as, reach: s.reach(as), tenants: map[matrix.ServerName]bool{}, known: map[matrix.UserID]bool{c.UserID: true},
		until: s.Now().Add(farPatience)}
}

// may tells whether the caller may hear of a server: that its tenant has to do with it, and another tenant of this deployment with
// the caller's.
func (k *seeker) may(ctx context.Context, server matrix.ServerName) bool {
	if server == k.as {
		return true
	}
	if !k.reach.may(ctx, server) {
		return false
	}
	if !k.s.Rooms.IsLocal(server) {
		return true
	}
	ok, asked := k.tenants[server]
	if !asked {
		ok = k.s.decide(ctx, k.c, server, policy.Input{Point: policy.FederationInbound, Server: &policy.Server{Name: string(k.as), Local: true}}).Allow
		k.tenants[server] = ok
	}
	return ok
}

// mayRoom tells whether the caller may hear of a room as far as the server goes that its ID names.
func (k *seeker) mayRoom(ctx context.Context, id matrix.RoomID) bool {
	return id.Server() == "" || k.c.Server != "" || k.may(ctx, id.Server())
}

// standing is how the caller stands to a room that is known here.
type standing struct {
	facts    *policy.Room
	audience *policy.Audience
	// current tells whether what is known of the room is how it is. inside is that somebody of the calling server is in it or invited, and
	// served that somebody of the tenant is that it asks.
	current, inside, served bool
	knock, restricted       bool
	allow                   []matrix.RoomID
}

// stand returns nil for a room that is not known.
func (k *seeker) stand(ctx context.Context, id matrix.RoomID) (*standing, error) {
	facts, audience, err := k.s.Rooms.PolicyFacts(ctx, id, k.c.UserID)
	if errors.Is(err, room.ErrUnknownRoom) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	st := &standing{facts: facts, audience: audience}
	err = k.s.Rooms.Look(ctx, id, func(v room.View) {
		ours, theirs := false, false
		for u, m := range v.Members() {
			server := u.Server()
			switch {
			case m == auth.Join && k.s.Rooms.IsLocal(server):
				ours = true
				st.served = st.served || server == k.as
			case m == auth.Join:
				theirs = true
			}
			st.inside = st.inside || k.c.Server != "" && server == k.c.Server && (m == auth.Join || m == auth.Invite)
			if ours && k.c.Server == "" || st.served && st.inside {
				break
			}
		}
		st.current = ours || !theirs
		version, rule := v.Version(), v.Rules().JoinRule()
		both := rule == auth.JoinRuleKnockRestricted && version.KnockRestricted
		st.knock = both || rule == auth.JoinRuleKnock && version.Knock
		if st.restricted = both || rule == auth.JoinRuleRestricted && version.Restricted; st.restricted {
			if e := v.State("m.room.join_rules", ""); e != nil {
				st.allow = auth.AllowedRooms(e.Content)
			}
		}
	})
	return st, err
}

// findable tells whether policy lets the caller learn of a room: those who are in it or invited where they may read it, the others by the point
// directory.rooms, asked of the caller's own tenant where that takes part, else of all who do.
func (k *seeker) findable(ctx context.Context, id matrix.RoomID, st *standing) (bool, error) {
	if st.facts.Membership == auth.Join || st.facts.Membership == auth.Invite {
		if k.s.Open == nil {
			return true, nil
		}
		return k.s.Open(ctx, k.c.Subject, id)
	}
	tenants := st.facts.Tenants
	switch {
	case k.c.Server == "" && slices.Contains(tenants, string(k.as)), len(tenants) == 0:
		tenants = []string{string(k.as)}
	case k.c.Server == "":
		for _, t := range tenants {
			if !k.may(ctx, matrix.ServerName(t)) {
				return false, nil
			}
		}
	}
	for _, t := range tenants {
		d := k.s.decide(ctx, k.c, matrix.ServerName(t), policy.Input{Point: policy.DirectoryRooms, Room: st.facts, Audience: st.audience})
		if d.Err != nil {
			return false, d.Error()
		}
		if !d.Allow {
			return false, nil
		}
	}
	return true, nil
}

// accessible tells whether the caller could enter or read a room that is known here, by its own rules.
//
// spec: client-server-api#get_matrixclientv1roomsroomidhierarchy
func (k *seeker) accessible(ctx context.Context, id matrix.RoomID, st *standing) (bool, error) {
	switch {
	case st.facts.Membership == auth.Join, st.facts.Membership == auth.Invite, st.inside:
		return true, nil
	case st.facts.Membership == auth.Ban:
		return false, nil
	}
	if k.c.Server != "" {
		if ok, err := k.s.Rooms.ACLAllows(ctx, id, k.c.Server); err != nil || !ok {
			return false, err
		}
	}
	if st.facts.HistoryVisibility == "world_readable" || st.facts.JoinRule == auth.JoinRulePublic || st.knock {
		return true, nil
	}
	return k.allowedBy(ctx, st.allow)
}

// allowedBy tells whether the caller is in one of the rooms of a restricted join rule.
func (k *seeker) allowedBy(ctx context.Context, rooms []matrix.RoomID) (bool, error) {
	for _, id := range rooms {
		in := false
		var err error
		if k.c.Server != "" {
			in, err = k.s.Rooms.InRoom(ctx, id, k.c.Server)
		} else {
			err = k.s.Rooms.Look(ctx, id, func(v room.View) { in = v.Membership(k.c.UserID) == auth.Join })
		}
		if err != nil && !errors.Is(err, room.ErrUnknownRoom) {
			return false, err
		}
		if in {
			return true, nil
		}
	}
	return false, nil
}

// children returns the rooms of a space that is known here, in order, without what the caller may not hear of, and which of them are known here.
func (k *seeker) children(ctx context.Context, id matrix.RoomID, suggested bool) ([]*Child, map[matrix.RoomID]bool, error) {
	list := []*Child{}
	here := map[matrix.RoomID]bool{}
	err := k.s.DB.View(ctx, func(tx *storage.Tx) error {
		list = list[:0]
		found, err := tx.LoadStateTypes([]matrix.RoomID{id}, []string{typeChild})
		if err != nil {
			return err
		}
		for _, e := range found[id] {
			if e.Flags&storage.Withheld != 0 {
				continue
			}
			if c := readChild(*e.StateKey, e.Content, e.Sender, e.OriginServerTS); c != nil && (!suggested || c.Content.Suggested) {
				list = append(list, c)
			}
		}
		slices.SortFunc(list, compareChildren)
		list = list[:min(len(list), maxChildren)]
		ids := make([]matrix.RoomID, len(list))
		for i, c := range list {
			ids[i] = c.RoomID
		}
		clear(here)
		rooms, err := tx.LoadRooms(ids)
		for _, r := range rooms {
			here[r.ID] = true
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	list, err = k.show(ctx, list, here)
	return list, here, err
}

// show leaves out of the rooms of a space what the caller may not hear of: rooms that policy hides, what people have said of whom a user may
// not know, rooms and servers with which the tenant has nothing to do.
func (k *seeker) show(ctx context.Context, list []*Child, here map[matrix.RoomID]bool) ([]*Child, error) {
	senders := make([]matrix.UserID, len(list))
	for i, c := range list {
		senders[i] = c.Sender
	}
	if err := k.meet(ctx, senders); err != nil {
		return nil, err
	}
	known := make([]matrix.RoomID, 0, len(here))
	for id := range here {
		known = append(known, id)
	}
	k.s.Rooms.Warm(ctx, known)
	out := make([]*Child, 0, len(list))
	for _, c := range list {
		if k.c.Server == "" && (!k.known[c.Sender] || !k.mayRoom(ctx, c.RoomID)) {
			continue
		}
		current := false
		if here[c.RoomID] {
			st, err := k.stand(ctx, c.RoomID)
			if err != nil {
				return nil, err
			}
			if current = st != nil && st.current; current {
				ok, err := k.findable(ctx, c.RoomID, st)
				if err != nil {
					return nil, err
				}
				if !ok {
					continue
				}
			}
		}
		if k.c.Server == "" {
			c.Content.Via = slices.DeleteFunc(c.Content.Via, func(name matrix.ServerName) bool { return !k.may(ctx, name) })
			if len(c.Content.Via) == 0 {
				if !current {
					continue
				}
				c.Content.Via = []matrix.ServerName{k.as}
			}
		}
		out = append(out, c)
	}
	return out, nil
}

// meet finds out of which people a user may know.
func (k *seeker) meet(ctx context.Context, people []matrix.UserID) error {
	if k.c.Server != "" {
		return nil
	}
	var users []matrix.UserID
	for _, u := range people {
		if _, ok := k.known[u]; !ok {
			k.known[u] = false
			users = append(users, u)
		}
	}
	if len(users) == 0 {
		return nil
	}
	parties, err := k.s.Parties.Parties(ctx, users)
	if err != nil {
		return err
	}
	for _, u := range users {
		p := parties[u]
		k.known[u] = p != nil && (k.s.Policy.Contact(k.c.Subject, p) || k.s.Policy.Contact(p, k.c.Subject))
	}
	return nil
}
