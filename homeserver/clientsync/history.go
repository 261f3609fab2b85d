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

// PageRequest asks for a page of a room's history.
type PageRequest struct {
	Room matrix.RoomID
	// From is a position; nil begins at the end that Dir goes away from.
	From, To *Token
	Dir      storage.Direction
	Limit    int
	Filter   *filter.RoomEventFilter
	// across lets the page go on across holes.
	across bool
}

// Page is a page of history as JSON events of the client format.
type Page struct {
	Chunk, State [][]byte
	Start        string
	End          string // empty: there is no more
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

// maxFetches is how many times other servers are asked for older history before a page is answered.
const maxFetches = 2

// LoadMessages returns a page of history. It goes on past events that the reader may not see, so that the reader gets to all history. Where
// something is missing in what this deployment has of a room, and where that ends, it asks other servers for more.
//
// spec: client-server-api#get_matrixclientv3roomsroomidmessages
func (s *Service) LoadMessages(ctx context.Context, v Viewer, q PageRequest) (*Page, error) {
	page, p, err := s.loadMessages(ctx, v, q)
	switch {
	case err == nil && p.atHole:
		return s.fillHole(ctx, v, q, p.hole)
	case err != nil || p.more || q.Dir == storage.Forward || q.To != nil || !s.isMember(ctx, q.Room, v.User):
		return page, err
	}
	if incomplete, err := s.Rooms.Incomplete(ctx, q.Room); err != nil || !incomplete {
		return page, err
	}
	for range maxFetches {
		older, err := s.Rooms.Backfill(ctx, q.Room, storage.NoHole, q.Limit)
		if err != nil {
			return nil, err
		}
		if page, p, err = s.loadMessages(ctx, v, q); err != nil || p.more || !older {
			return page, err
		}
		if len(page.Chunk) > 0 {
			break
		}
	}
	page.End = Token{Pos: p.at}.String() // another time there may be more
	return page, nil
}

// fillHole returns a page that begins at a hole: with what can be had of it, or else with what comes after it.
func (s *Service) fillHole(ctx context.Context, v Viewer, q PageRequest, hole storage.Hole) (*Page, error) {
	for n, older := 0, s.isMember(ctx, q.Room, v.User); older && n < maxFetches; n++ {
		var err error
		if older, err = s.Rooms.Backfill(ctx, q.Room, hole, q.Limit); err != nil {
			return nil, err
		}
		if page, p, err := s.loadMessages(ctx, v, q); err != nil || !p.atHole {
			return page, err
		}
	}
	q.across = true
	return s.LoadMessages(ctx, v, q)
}

// loadMessages reads a page of what is stored, and tells where it ended.
func (s *Service) loadMessages(ctx context.Context, v Viewer, q PageRequest) (page *Page, p *paging, err error) {
	err = s.view(ctx, v, q.Room, errHidden(), func(tx *storage.Tx, c *Contacts) error {
		last, err := s.access(tx, v, q.Room)
		if err != nil {
			return err
		}
		p = &paging{s: s, tx: tx, ctx: ctx, v: v, q: q, contacts: c}
		if err := p.run(last); err != nil {
			return err
		}
		page, err = p.render()
		return err
	})
	return page, p, err
}

// paging is the reading of one page.
type paging struct {
	s        *Service
	tx       *storage.Tx
	ctx      context.Context // of one call
	v        Viewer
	q        PageRequest
	contacts *Contacts
	start    int64
	at       int64
	more     bool
	// hole is what the page ends above, with the event at top; atHole is true where it would begin there.
	hole   storage.Hole
	top    int64
	atHole bool
	found  []*storage.Event
}

func (p *paging) run(last int64) error {
	switch {
	case p.q.From != nil:
		p.start = p.q.From.Pos
	case p.q.Dir == storage.Backward:
		pos, err := p.tx.Position()
		if err != nil {
			return err
		}
		p.start = pos
	default:
		p.start = -1 << 62
	}
	if p.q.Dir == storage.Backward {
		p.start = min(p.start, last)
	}
	p.at, p.more = p.start, true
	if p.q.Dir == storage.Backward && !p.q.across {
		if err := p.findHole(); err != nil || p.atHole {
			return err
		}
	}
	for scanned := 0; len(p.found) < p.q.Limit && p.more && scanned < maxScan; {
		want := p.q.Limit - len(p.found) + 10
		list, err := p.tx.LoadPage(p.q.Room, p.at, p.q.Dir, want)
		if err != nil {
			return err
		}
		p.more = len(list) == want
		scanned += len(list)
		if err := p.take(list, last); err != nil {
			return err
		}
		if p.hole != storage.NoHole && (p.at < p.top || !p.more) {
			p.at, p.more = p.top-1, true
			return nil
		}
	}
	return nil
}

// findHole finds out where the page ends at the latest, because something is missing there.
func (p *paging) findHole() error {
	h, top, ok, err := p.tx.FindHole(p.q.Room, p.start+1)
	if err != nil || !ok || p.q.To != nil && p.q.To.Pos >= top {
		return err
	}
	p.hole, p.top, p.atHole = h, top, top == p.start+1
	return nil
}

// take keeps what the reader may see, up to the limit, and moves on.
func (p *paging) take(list []*storage.Event, last int64) error {
	seen, err := p.s.Visible(p.tx, p.v.User, list)
	if err != nil {
		return err
	}
	if list, err = p.s.erase(p.tx, p.v.User, list); err != nil {
		return err
	}
	for _, e := range list {
		if p.hole != storage.NoHole && e.Pos < p.top {
			return nil
		}
		if len(p.found) >= p.q.Limit {
			p.more = true
			return nil
		}
		if p.q.To != nil && (p.q.Dir == storage.Backward && e.Pos <= p.q.To.Pos || p.q.Dir == storage.Forward && e.Pos > p.q.To.Pos) || e.Pos > last {
			p.more = false
			return nil
		}
		if p.q.Dir == storage.Backward {
			p.at = e.Pos - 1
		} else {
			p.at = e.Pos
		}
		if !seen[e.ID] || p.q.Filter != nil && !p.matches(e) {
			continue
		}
		if shown := p.contacts.Show(p.ctx, e); shown != nil {
			p.found = append(p.found, shown)
		}
	}
	return nil
}

func (p *paging) matches(e *storage.Event) bool {
	_, url := event.ContentField(e.Event, "url")
	return p.q.Filter.Room(e.RoomID) && p.q.Filter.Match(e.Type, string(e.Sender), url)
}

func (p *paging) render() (*Page, error) {
	page := &Page{Start: Token{Pos: p.start}.String(), Chunk: [][]byte{}}
	if p.more {
		page.End = Token{Pos: p.at}.String()
	}
	var err error
	if page.Chunk, err = p.s.renderEvents(p.ctx, p.tx, p.v, p.contacts, p.found, true); err != nil {
		return nil, err
	}
	if p.q.Filter != nil && p.q.Filter.LazyLoadMembers {
		page.State, err = p.s.senders(p.ctx, p.tx, p.v, p.contacts, p.q.Room, p.found)
	}
	return page, err
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
