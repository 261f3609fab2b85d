package room

import (
	"context"
	"errors"

	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/matrix/signing"
	"hansa/storage"
)

// Signer returns the follower that signs the events of our users, each with the key of the sender's tenant, in rooms where another
// server takes part; another tenant of this deployment counts as one. An event's ID does not depend on its signatures, so that a send never
// waits for them, and rooms that stay within one tenant never pay for them.
//
// spec: server-server-api#signing-events
func (s *Service) Signer() stream.Follower {
	return stream.Follower{Name: "room.signer", Handle: s.signEntries}
}

func (s *Service) signEntries(ctx context.Context, entries []storage.Entry, _ int64) error {
	shared := map[matrix.RoomID]bool{}
	var due []*storage.Event
	for i := range entries {
		e := entries[i].Event
		if entries[i].Kind != storage.KindEvent || len(e.Signatures) > 0 || !s.IsLocal(e.Sender.Server()) {
			continue
		}
		many, ok := shared[e.RoomID]
		if !ok {
			var err error
			if many, err = s.hasOtherServers(ctx, e.RoomID); err != nil {
				return err
			}
			shared[e.RoomID] = many
		}
		if many {
			due = append(due, e)
		}
	}
	_, err := s.Sign(ctx, due)
	return err
}

// hasOtherServers tells whether users of more than one server are in a room.
func (s *Service) hasOtherServers(ctx context.Context, id matrix.RoomID) (many bool, err error) {
	l, err := s.live(ctx, id)
	if errors.Is(err, ErrUnknownRoom) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := s.gather(ctx, l); err != nil {
		return false, err
	}
	return len(l.crowd.servers) > 1, nil
}

// Sign returns events with the signatures of their senders' tenants, making and storing those that are missing. Whoever hands events
// to another server goes through here.
func (s *Service) Sign(ctx context.Context, events []*storage.Event) ([]*storage.Event, error) {
	out := make([]*storage.Event, len(events))
	made := map[matrix.EventID][]byte{}
	for i, e := range events {
		out[i] = e
		key, ok := s.Keys[e.Sender.Server()]
		if !ok || len(e.Signatures) > 0 {
			continue
		}
		signed := *e
		signed.Event = signing.SignEvent(e.Event, e.Sender.Server(), key)
		out[i], made[e.ID] = &signed, signed.Signatures
	}
	if len(made) == 0 {
		return out, nil
	}
	return out, unavailable(s.DB.Update(ctx, func(tx *storage.Tx) error { return tx.SetSignatures(made) }))
}
