package clientsync

import (
	"hansa/homeserver/room"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/storage"
	"hansa/storage/statemap"
)

// erase returns events as a reader gets them: redacted where their sender is erased, unless the reader was in the room at the event, or came in
// before the sender was erased. The events are of rooms and times that the reader may see.
//
// spec: client-server-api#post_matrixclientv3accountdeactivate
func (s *Service) erase(tx *storage.Tx, user matrix.UserID, events []*storage.Event) ([]*storage.Event, error) {
	gone, err := s.Rooms.ErasedAmong(tx, events)
	if err != nil || len(gone) == 0 {
		return events, err
	}
	var theirs []*storage.Event
	for _, e := range events {
		if _, ok := gone[e.Sender]; ok && e.Sender != user && room.IsPersonal(e) {
			theirs = append(theirs, e)
		}
	}
	stays, err := s.stays(tx, user, theirs)
	if err != nil {
		return nil, err
	}
	there, err := s.joinedAt(tx, user, theirs)
	if err != nil {
		return nil, err
	}
	redacted := map[matrix.EventID]*storage.Event{}
	for _, e := range theirs {
		if join := stays[e.RoomID].join; there[e.StateRoot] || join > 0 && join < gone[e.Sender] {
			continue
		}
		r, err := event.Redact(e.Event)
		if err != nil {
			return nil, err
		}
		c := *e
		c.Event = r
		redacted[e.ID] = &c
	}
	if len(redacted) == 0 {
		return events, nil
	}
	out := make([]*storage.Event, len(events))
	for i, e := range events {
		if out[i] = e; redacted[e.ID] != nil {
			out[i] = redacted[e.ID]
		}
	}
	return out, nil
}

// eraseIn is erase for those of the events found that are in rooms which are new to the reader, or left. In the others the reader was all the time.
func (s *Service) eraseIn(tx *storage.Tx, user matrix.UserID, rooms map[matrix.RoomID]*roomNews, found map[matrix.EventID]*storage.Event) error {
	var list []*storage.Event
	for _, e := range found {
		if r := rooms[e.RoomID]; r != nil && (r.newly || r.membership != auth.Join) {
			list = append(list, e)
		}
	}
	list, err := s.erase(tx, user, list)
	for _, e := range list {
		found[e.ID] = e
	}
	return err
}

// joinedAt tells in which of the states of events a user is in the room.
func (s *Service) joinedAt(tx *storage.Tx, user matrix.UserID, events []*storage.Event) (map[statemap.Hash]bool, error) {
	mine := event.StateKey{Type: typeMember, Key: string(user)}
	at := map[statemap.Hash]matrix.EventID{}
	loader := s.Rooms.NodesIn(tx)
	var ids []matrix.EventID
	for _, e := range events {
		if _, ok := at[e.StateRoot]; ok || e.StateRoot == (statemap.Hash{}) {
			continue
		}
		id, err := statemap.Get(loader, e.StateRoot, mine)
		if err != nil {
			return nil, err
		}
		at[e.StateRoot] = id
		if id != "" {
			ids = append(ids, id)
		}
	}
	found, err := tx.LoadEvents(ids)
	if err != nil {
		return nil, err
	}
	out := make(map[statemap.Hash]bool, len(at))
	for root, id := range at {
		e := found[id]
		out[root] = e != nil && event.Membership(e.Event) == auth.Join
	}
	return out, nil
}
