package clientsync

import (
	"context"

	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/matrix/filter"
	"hansa/storage"
)

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
		if p.hole != storage.NoHole && e.Pos < p.top { // the event at top may be one that nobody sees
			p.at, p.more = p.top-1, true
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
