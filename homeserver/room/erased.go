package room

import (
	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage"
	"hansa/storage/statemap"
)

// IsPersonal tells whether an event is something that its sender has said, or their own membership, and so goes with the sender when that account
// is erased. What people have set for a room stays the room's: without it others could not tell any more what is allowed there.
//
// spec: client-server-api#account-deactivation
func IsPersonal(e *storage.Event) bool {
	switch {
	case e.StateKey == nil:
		return e.Type != typeRedaction // else what it redacts would come back
	case e.Is(typeMember, string(e.Sender)):
		_, promised := event.ContentField(e.Event, "third_party_invite")
		return !promised
	}
	return false
}

// ErasedAmong returns those of our people who are erased and have sent personal events, with the positions of the log at which they were erased.
func (s *Service) ErasedAmong(tx *storage.Tx, events []*storage.Event) (map[matrix.UserID]int64, error) {
	var users []matrix.UserID
	seen := map[matrix.UserID]bool{}
	for _, e := range events {
		if !seen[e.Sender] && s.IsLocal(e.Sender.Server()) && IsPersonal(e) {
			seen[e.Sender] = true
			users = append(users, e.Sender)
		}
	}
	return tx.LoadErased(users)
}

// erased tells which events a server gets redacted because their senders are erased and it was not in the room at the time: it has never had them.
func (r *reading) erased(events []*storage.Event) (map[matrix.EventID]bool, error) {
	var out map[matrix.EventID]bool
	err := r.s.DB.Read(r.ctx, func(tx *storage.Tx) error {
		gone, err := r.s.ErasedAmong(tx, events)
		if err != nil || len(gone) == 0 {
			return err
		}
		out = map[matrix.EventID]bool{}
		was := map[statemap.Hash]bool{}
		for _, e := range events {
			if _, ok := gone[e.Sender]; !ok || !IsPersonal(e) {
				continue
			}
			there, asked := was[e.StateRoot]
			if !asked && e.StateRoot != (statemap.Hash{}) {
				if there, err = r.wasThere(tx, presence{e.StateRoot, visibleJoined}); err != nil {
					return err
				}
				was[e.StateRoot] = there
			}
			out[e.ID] = !there
		}
		return nil
	})
	return out, err
}
