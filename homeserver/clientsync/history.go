package clientsync

import (
	"context"
	"errors"

	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/matrix/filter"
	"hansa/policy"
	"hansa/storage"
)

// maxScan is how many events one page of history may look at; what lies beyond comes with the next page.
const maxScan = 2000

// Viewer is who reads history.
type Viewer struct {
	User   matrix.UserID
	Device matrix.DeviceID
	Party  *policy.Party
}

// errHidden is the answer for rooms that somebody may not read; it does not tell whether they exist.
func errHidden() *matrix.Error { return matrix.Forbidden("You are not in this room.") }

// enter is nil for a reader to whom the room is open; hidden is the answer to all others.
func (s *Service) enter(ctx context.Context, v Viewer, id matrix.RoomID, hidden error) error {
	open, err := s.RoomOpen(ctx, v.Party, id)
	if errors.Is(err, room.ErrUnknownRoom) || err == nil && !open {
		return hidden
	}
	return err
}

// view runs fn on a snapshot, for a reader to whom the room is open; hidden is the answer to all others. Whom the reader may know of is looked up
// while no connection is held, where need be between two runs of fn: whoever waits for a second connection with one in hand may wait for ever.
func (s *Service) view(ctx context.Context, v Viewer, id matrix.RoomID, hidden error, fn func(*storage.Tx, *Contacts) error) error {
	if err := s.enter(ctx, v, id, hidden); err != nil {
		return err
	}
	c := s.Contacts(v.Party)
	for {
		c.noting, c.cold = true, nil
		err := s.DB.View(ctx, func(tx *storage.Tx) error { return fn(tx, c) })
		var told *matrix.Error // may be wrong as long as somebody is not known
		if len(c.cold) == 0 || err != nil && !errors.As(err, &told) {
			return err
		}
		c.noting = false
		if err := c.Ask(ctx, c.cold); err != nil {
			return err
		}
	}
}

// access checks that a reader may read something of a room, and finds the last position that a reader who has left may see.
func (s *Service) access(tx *storage.Tx, v Viewer, room matrix.RoomID) (last int64, err error) {
	m, ok, err := tx.FindMember(room, v.User)
	if err != nil {
		return 0, err
	}
	if ok && m.Membership == auth.Join {
		return 1 << 62, nil
	}
	e, err := tx.LoadStateEvent(room, event.StateKey{Type: typeHistory})
	if err == nil {
		if h, _ := event.ContentString(e.Event, "history_visibility"); h == "world_readable" {
			return 1 << 62, nil
		}
	} else if !errors.Is(err, storage.ErrNotFound) {
		return 0, err
	}
	if ok && (m.Membership == auth.Leave || m.Membership == auth.Ban) && !m.Forgotten {
		if join, _, err := tx.LastStay(m); err != nil || join != 0 {
			return m.Pos, err // nothing later can be meant for them; what there is in between is judged event by event
		}
	}
	return 0, errHidden()
}

func pos(e *storage.Event) int64 {
	if e == nil {
		return 0
	}
	return e.Pos
}

// senders renders the memberships of those who sent the events.
func (s *Service) senders(ctx context.Context, tx *storage.Tx, v Viewer, c *Contacts, room matrix.RoomID, events []*storage.Event) ([][]byte, error) {
	seen := map[matrix.UserID]bool{}
	var users []matrix.UserID
	for _, e := range events {
		if !seen[e.Sender] {
			seen[e.Sender] = true
			users = append(users, e.Sender)
		}
	}
	found, err := tx.LoadMemberEvents([]matrix.RoomID{room}, users)
	if err != nil {
		return nil, err
	}
	var shown []*storage.Event
	for _, e := range found[room] {
		if e = c.Show(ctx, e); e != nil {
			shown = append(shown, e)
		}
	}
	return s.renderEvents(ctx, tx, v, c, shown, true)
}

// renderEvents writes events in the client format for one reader.
func (s *Service) renderEvents(ctx context.Context, tx *storage.Tx, v Viewer, c *Contacts, events []*storage.Event, roomID bool) ([][]byte, error) {
	r := reader{user: v.User, device: v.Device, now: s.Now().UnixMilli(), roomID: roomID, replaced: map[matrix.EventID]*storage.Event{}}
	var want []matrix.EventID
	for _, e := range events {
		if e.StateKey != nil && e.Replaces != "" {
			want = append(want, e.Replaces)
		}
		if e.RedactedBy != "" {
			want = append(want, e.RedactedBy)
		}
	}
	found, err := tx.LoadEvents(want)
	if err != nil {
		return nil, err
	}
	var old []*storage.Event
	for _, e := range found {
		old = append(old, e)
	}
	seen, err := s.Visible(tx, v.User, old)
	if err != nil {
		return nil, err
	}
	if old, err = s.erase(tx, v.User, old); err != nil {
		return nil, err
	}
	for _, e := range old {
		if seen[e.ID] && c.Show(ctx, e) == e {
			r.replaced[e.ID] = e
		}
	}
	r.redactions = r.replaced
	out := make([][]byte, len(events))
	for i, e := range events {
		out[i] = r.appendEvent(nil, newItem(e), "")
	}
	return out, nil
}

// LoadEvent returns one event that the reader may see; everything else is M_NOT_FOUND.
//
// spec: client-server-api#get_matrixclientv3roomsroomideventeventid
func (s *Service) LoadEvent(ctx context.Context, v Viewer, room matrix.RoomID, id matrix.EventID) ([]byte, error) {
	var out []byte
	err := s.view(ctx, v, room, errNoEvent(), func(tx *storage.Tx, c *Contacts) error {
		e, err := s.single(ctx, tx, v, c, room, id)
		if err != nil {
			return err
		}
		list, err := s.renderEvents(ctx, tx, v, c, []*storage.Event{e}, true)
		if err == nil {
			out = list[0]
		}
		return err
	})
	return out, err
}

func errNoEvent() *matrix.Error {
	return matrix.NotFound("There is no such event, or you may not see it.")
}

func (s *Service) single(ctx context.Context, tx *storage.Tx, v Viewer, c *Contacts, room matrix.RoomID, id matrix.EventID) (*storage.Event, error) {
	missing := errNoEvent()
	e, err := tx.LoadEvent(id)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, missing
	}
	if err != nil {
		return nil, err
	}
	if e.RoomID != room || e.Flags.Hidden() {
		return nil, missing
	}
	one := []*storage.Event{e}
	seen, err := s.Visible(tx, v.User, one)
	if err != nil {
		return nil, err
	}
	if one, err = s.erase(tx, v.User, one); err != nil {
		return nil, err
	}
	shown := c.Show(ctx, one[0])
	if !seen[id] || shown == nil {
		return nil, missing
	}
	return shown, nil
}

// Around is an event with what was before and after it.
type Around struct {
	Event         []byte
	Before, After [][]byte
	State         [][]byte
	Start, End    string
}

// LoadContext returns an event with its surroundings and the state at the end of them.
//
// spec: client-server-api#get_matrixclientv3roomsroomidcontexteventid
func (s *Service) LoadContext(ctx context.Context, v Viewer, room matrix.RoomID, id matrix.EventID, limit int, f *filter.RoomEventFilter) (*Around, error) {
	var out *Around
	err := s.view(ctx, v, room, errNoEvent(), func(tx *storage.Tx, c *Contacts) error {
		e, err := s.single(ctx, tx, v, c, room, id)
		if err != nil {
			return err
		}
		last, err := s.access(tx, v, room)
		if err != nil {
			return err
		}
		page := func(from int64, dir storage.Direction, n int) (*paging, error) {
			p := &paging{s: s, tx: tx, ctx: ctx, v: v, contacts: c,
				q: PageRequest{Room: room, From: &Token{Pos: from}, Dir: dir, Limit: n, Filter: f}}
			return p, p.run(last)
		}
		before, err := page(e.Pos-1, storage.Backward, limit/2)
		if err != nil {
			return err
		}
		after, err := page(e.Pos, storage.Forward, limit-limit/2)
		if err != nil {
			return err
		}
		out, err = s.renderContext(ctx, tx, v, c, e, before, after, f)
		return err
	})
	return out, err
}

func (s *Service) renderContext(ctx context.Context, tx *storage.Tx, v Viewer, c *Contacts, e *storage.Event, before, after *paging, f *filter.RoomEventFilter) (*Around, error) {
	out := &Around{Start: Token{Pos: before.at}.String(), End: Token{Pos: after.at}.String()}
	if len(before.found) == 0 {
		out.Start = Token{Pos: e.Pos - 1}.String()
	}
	one, err := s.renderEvents(ctx, tx, v, c, []*storage.Event{e}, true)
	if err != nil {
		return nil, err
	}
	out.Event = one[0]
	if out.Before, err = s.renderEvents(ctx, tx, v, c, before.found, true); err != nil {
		return nil, err
	}
	if out.After, err = s.renderEvents(ctx, tx, v, c, after.found, true); err != nil {
		return nil, err
	}
	newest := e
	if n := len(after.found); n > 0 {
		newest = after.found[n-1]
	}
	out.State, err = s.stateFor(ctx, tx, v, c, newest, append(append([]*storage.Event{e}, before.found...), after.found...), f)
	return out, err
}

// stateFor renders the state at an event; of memberships only those that lazy loading wants.
func (s *Service) stateFor(ctx context.Context, tx *storage.Tx, v Viewer, c *Contacts, at *storage.Event, spoken []*storage.Event, f *filter.RoomEventFilter) ([][]byte, error) {
	all, err := tx.LoadWholeStateAt(at.StateRoot)
	if err != nil {
		return nil, err
	}
	lazy := f != nil && f.LazyLoadMembers
	senders := map[matrix.UserID]bool{}
	for _, e := range spoken {
		senders[e.Sender] = true
	}
	var shown []*storage.Event
	for _, e := range all {
		if lazy && e.Type == typeMember && !senders[matrix.UserID(*e.StateKey)] {
			continue
		}
		if e = c.Show(ctx, e); e != nil {
			shown = append(shown, e)
		}
	}
	return s.renderEvents(ctx, tx, v, c, shown, true)
}
