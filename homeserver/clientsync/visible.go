package clientsync

import (
	"context"
	"net/http"
	"slices"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/policy"
	"hansa/storage"
	"hansa/storage/statemap"
)

// stay is the newest stay of a reader in a room.
type stay struct {
	// join is the position of the newest event that says that the reader is in the room, 0 for who never was.
	join int64
	// forgotten rooms show nothing but what the world may read.
	forgotten bool
}

// Visible tells which events a user may see: by the history visibility and the user's membership at each event, not now.
// All events are judged with a few queries. Contact rules are not asked here.
//
// spec: client-server-api#room-history-visibility
func (s *Service) Visible(tx *storage.Tx, user matrix.UserID, events []*storage.Event) (map[matrix.EventID]bool, error) {
	out := make(map[matrix.EventID]bool, len(events))
	if len(events) == 0 {
		return out, nil
	}
	stays, err := s.stays(tx, user, events)
	if err != nil {
		return nil, err
	}
	mine, hist := event.StateKey{Type: typeMember, Key: string(user)}, event.StateKey{Type: typeHistory}
	at := map[statemap.Hash]map[event.StateKey]matrix.EventID{}
	var load []matrix.EventID
	loader := s.Rooms.NodesIn(tx)
	for _, e := range events {
		if _, ok := at[e.StateRoot]; !ok {
			m, err := statemap.GetMany(loader, e.StateRoot, []event.StateKey{mine, hist})
			if err != nil {
				return nil, err
			}
			at[e.StateRoot] = m
			load = append(load, m[mine], m[hist])
		}
		if e.Replaces != "" && (e.Is(mine.Type, mine.Key) || e.Is(hist.Type, hist.Key)) {
			load = append(load, e.Replaces)
		}
	}
	found, err := tx.LoadEvents(load)
	if err != nil {
		return nil, err
	}
	for _, e := range events {
		member, history := found[at[e.StateRoot][mine]], found[at[e.StateRoot][hist]]
		ok := maySee(e.Pos, history, member, stays[e.RoomID])
		if !ok && e.Replaces != "" {
			switch { // what changes the answer is judged by both answers
			case e.Is(mine.Type, mine.Key):
				ok = maySee(e.Pos, history, found[e.Replaces], stays[e.RoomID])
			case e.Is(hist.Type, hist.Key):
				ok = maySee(e.Pos, found[e.Replaces], member, stays[e.RoomID])
			}
		}
		out[e.ID] = ok
	}
	return out, nil
}

// stays loads the reader's newest stays in the rooms of the events.
func (s *Service) stays(tx *storage.Tx, user matrix.UserID, events []*storage.Event) (map[matrix.RoomID]stay, error) {
	out := map[matrix.RoomID]stay{}
	for _, e := range events {
		if _, ok := out[e.RoomID]; ok {
			continue
		}
		m, ok, err := tx.FindMember(e.RoomID, user)
		if err != nil {
			return nil, err
		}
		st := stay{forgotten: m.Forgotten}
		if ok {
			if st.join, _, err = tx.LastStay(m); err != nil {
				return nil, err
			}
		}
		out[e.RoomID] = st
	}
	return out, nil
}

func maySee(pos int64, history, member *storage.Event, st stay) bool {
	visibility := "shared"
	if history != nil {
		switch v, _ := event.ContentString(history.Event, "history_visibility"); v {
		case "world_readable", "invited", "joined":
			visibility = v
		}
	}
	membership := ""
	if member != nil {
		membership = event.Membership(member.Event)
	}
	switch {
	case visibility == "world_readable":
		return true
	case st.forgotten:
		return false
	case membership == auth.Join:
		return true
	case visibility == "shared":
		return st.join > 0 && pos < st.join // came in at any point after the event
	case visibility == "invited":
		return membership == auth.Invite
	}
	return false
}

// Contacts answers which users a reader may know of, with everybody asked once. Inside a room it is enough that one of the two may
// reach the other: who was invited knows of whoever invited them.
type Contacts struct {
	s       *Service
	viewer  *policy.Party
	answers map[matrix.UserID]bool
	// noting is set while a connection to the database is held: users who were not asked about are noted in cold then, and not looked up.
	noting bool
	cold   []matrix.UserID
	// err is what kept a user from being looked up; who asks must not take that for a no.
	err error
}

// Contacts returns the answers for one reader and request.
func (s *Service) Contacts(viewer *policy.Party) *Contacts {
	return &Contacts{s: s, viewer: viewer, answers: map[matrix.UserID]bool{}}
}

// askAtOnce is about how many users one look-up is: what is read of them is not held longer.
const askAtOnce = 5000

// Ask finds the answers for many users with one look-up, or few for a crowd.
func (c *Contacts) Ask(ctx context.Context, users []matrix.UserID) error {
	var missing []matrix.UserID
	for _, u := range users {
		if _, ok := c.answers[u]; !ok && string(u) != c.viewer.ID {
			missing = append(missing, u)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	for users := range slices.Chunk(missing, askAtOnce) {
		parties, err := c.s.Parties.Parties(ctx, users)
		if err != nil {
			return err
		}
		for _, u := range users {
			if p := parties[u]; p != nil {
				c.either(u, p)
			}
		}
	}
	return c.err
}

// May tells whether the reader may know of a user. A user who was not asked about is looked up; where that fails, Err says so.
func (c *Contacts) May(ctx context.Context, user matrix.UserID) bool {
	if string(user) == c.viewer.ID {
		return true
	}
	if ok, known := c.answers[user]; known {
		return ok
	}
	if c.noting {
		c.cold = append(c.cold, user)
		return false
	}
	p, err := c.s.Parties.Party(ctx, user)
	if err != nil {
		c.err = err
		return false
	}
	return c.either(user, p)
}

// Err is not nil when a user could not be looked up, so that something may be missing from what was shown.
func (c *Contacts) Err() error { return c.err }

// either finds the answer for a user.
func (c *Contacts) either(user matrix.UserID, p *policy.Party) bool {
	ok := c.s.Policy.Contact(c.viewer, p) || c.s.Policy.Contact(p, c.viewer)
	if !ok { // a no, or no answer?
		there, back := c.s.Policy.ContactDecision(c.viewer, p), c.s.Policy.ContactDecision(p, c.viewer)
		if ok = there.Allow || back.Allow; !ok && (there.Err != nil || back.Err != nil) {
			c.err = undecided()
			return false
		}
	}
	c.answers[user] = ok
	return ok
}

// undecided is the answer where policy cannot say who may see what: what is left out now would never come again.
func undecided() error {
	return matrix.Errorf(http.StatusServiceUnavailable, matrix.CodeUnknown, "The policy cannot decide at present; try again later.").With("retry_after_ms", 5000)
}

// Show returns the form in which a reader sees an event: the event, an outline of it, or nil. Whom the event is about counts as much
// as who sent it.
func (c *Contacts) Show(ctx context.Context, e *storage.Event) *storage.Event {
	if e.StateKey != nil && e.Type == typeMember && !c.May(ctx, matrix.UserID(*e.StateKey)) {
		return nil
	}
	if e.Flags&storage.Withheld == 0 && c.May(ctx, e.Sender) {
		return c.thin(ctx, e)
	}
	// The reader must learn of being removed, whoever did it.
	if e.StateKey != nil && structural(e.Type) || e.Is(typeMember, c.viewer.ID) || e.Flags&storage.Withheld != 0 && placeholder(e) {
		return c.outline(ctx, e)
	}
	return nil
}

// RoomOpen tells whether a reader may read a room: everybody of this deployment who is in it must be somebody the reader may be with, to
// somebody who is not in it everybody, and the rules of the point room.read must agree. A room that has become impossible is silent until
// people leave or policy changes.
func (s *Service) RoomOpen(ctx context.Context, viewer *policy.Party, room matrix.RoomID) (bool, error) {
	facts, audience, err := s.Rooms.ReadFacts(ctx, room, matrix.UserID(viewer.ID))
	if err != nil {
		return false, err
	}
	if ok, err := s.Policy.AudienceContact(viewer, audience); err != nil {
		return false, undecided()
	} else if !ok {
		return false, nil
	}
	d := s.Policy.Decide(ctx, &policy.Input{Point: policy.RoomRead, Time: s.Now(), Tenant: policy.Tenant{Name: viewer.Tenant}, Subject: viewer, Room: facts,
		Audience: audience})
	if d.Err != nil {
		return false, d.Error() // nobody knows: what is left out of an answer now would never come again
	}
	return d.Allow, nil
}
