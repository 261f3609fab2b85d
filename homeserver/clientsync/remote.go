package clientsync

import (
	"context"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/storage"
)

// remote tells of rooms that this deployment is not in: invitations and knocks, and how they ended.
//
// spec: client-server-api#stripped-state
func (g *gathering) remote() error {
	all := g.n.first || g.q.FullState
	since := g.n.since
	if all || len(g.q.reopened) > 0 {
		since = 0
	}
	list, err := g.tx.LoadRemoteMembers(g.q.User, since)
	if err != nil {
		return err
	}
	for i := range list {
		m := &list[i]
		if g.q.Filter != nil && !g.q.Filter.Room.Room(m.RoomID) {
			continue
		}
		g.forget(m.RoomID)
		own, err := m.Parse()
		if err != nil || own == nil {
			g.s.log.WithField("room_id", m.RoomID).Error("the stored event of a membership in a remote room cannot be read")
			continue
		}
		ev := &storage.Event{Event: own, Pos: m.Pos}
		switch {
		case m.Open() && (all || m.Pos > g.n.since || g.q.reopened[m.RoomID]):
			r := g.n.room(m.RoomID)
			r.membership, r.stripped = m.Membership, append(strippedOf(m), ev)
		case !m.Open() && !g.n.first && m.Pos > g.n.since:
			r := g.n.room(m.RoomID)
			r.membership, r.own, r.prevBatch = auth.Leave, newItem(ev), g.n.upto
			r.timeline = filterTimeline([]*item{r.own}, g.q.Filter, m.RoomID)
		}
	}
	return nil
}

// forget takes a room out of what was found in the memberships of rooms known here: there is newer news of it.
func (g *gathering) forget(id matrix.RoomID) {
	for _, list := range []*[]storage.Member{&g.joined, &g.fresh, &g.gone, &g.asked} {
		*list = slices.DeleteFunc(*list, func(m storage.Member) bool { return m.RoomID == id })
	}
}

// strippedOf reads the stripped state of a room that this deployment is not in. It is only as true as who sent it; a membership of the
// user is left out, because the event itself says it.
func strippedOf(m *storage.RemoteMember) []*storage.Event {
	var list []struct {
		Type     string         `json:"type"`
		StateKey *string        `json:"state_key"`
		Sender   matrix.UserID  `json:"sender"`
		Content  jsontext.Value `json:"content"`
	}
	if json.Unmarshal(m.Stripped, &list) != nil {
		return nil
	}
	out := make([]*storage.Event, 0, len(list)+1)
	for i := range list {
		e := &list[i]
		if e.StateKey == nil || e.Type == typeMember && *e.StateKey == string(m.UserID) {
			continue
		}
		out = append(out, &storage.Event{Event: &event.Event{Version: m.Version, RoomID: m.RoomID, Type: e.Type, StateKey: e.StateKey, Sender: e.Sender,
			Content: e.Content}, Pos: m.Pos})
	}
	return out
}

// reopenedAfar finds the invitations into remote rooms that were withheld from the reader and may be told now. Those that stay closed
// are noted in the request, for the next token.
func (s *Service) reopenedAfar(ctx context.Context, q *Request, into map[matrix.RoomID]bool) error {
	var list []storage.RemoteMember
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) { list, err = tx.LoadRemoteMembers(q.User, 0); return err })
	if err != nil {
		return err
	}
	c := s.Contacts(q.Party)
	q.closedAfar = nil
	for i := range list {
		m := &list[i]
		if m.Membership != auth.Invite || !slices.Contains(q.Since.Held, heldName(m.RoomID)) {
			continue
		}
		if c.May(ctx, m.Sender) {
			into[m.RoomID] = true
		} else {
			q.closedAfar = append(q.closedAfar, m.RoomID)
		}
	}
	return c.Err()
}
