package room

import (
	"context"
	"errors"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/storage"
)

// prepareRedaction finds the target of a redaction.
func (s *Service) prepareRedaction(ctx context.Context, d *Draft) error {
	if d.Redacts == "" {
		v, _ := stringMember(d.Content, "redacts")
		id, err := matrix.ParseEventID(v)
		if err != nil {
			return matrix.InvalidParam("A redaction must name the event that it redacts.")
		}
		d.Redacts = id
	}
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) { d.target, err = tx.LoadEvent(d.Redacts); return err })
	if errors.Is(err, storage.ErrNotFound) || err == nil && d.target.RoomID != d.RoomID {
		return matrix.NotFound("There is no such event in this room.")
	}
	return err
}

// redactions are the effects of a redaction on its target, if it may have any. The caller holds l.mu.
// differs: a create event and a server ACL keep their content: without it the room would lose its version, or every server.
//
// spec: rooms/v3#handling-redactions
func (l *live) redactions(e, target *event.Event) ([]storage.Redaction, error) {
	if target.Is(auth.TypeCreate, "") || target.Is("m.room.server_acl", "") {
		return nil, matrix.Forbidden("%s cannot be redacted.", target.Type)
	}
	if !auth.CanApplyRedaction(l.rules, e, target) {
		return nil, matrix.Forbidden("You may not redact this event.")
	}
	r, err := event.Redact(target)
	if err != nil {
		return nil, err
	}
	return []storage.Redaction{{Target: target.ID, By: e.ID, JSON: r.JSON}}, nil
}

// applyRedactions takes the content of redacted state out of memory. A redacted membership is still a membership.
func (l *live) applyRedactions(list []storage.Redaction) error {
	for _, r := range list {
		for k, entry := range l.state {
			if entry.event.ID != r.Target {
				continue
			}
			e, err := event.ParseStored(entry.event.Version, r.JSON, r.Target, entry.event.Signatures)
			if err != nil {
				return err
			}
			if err := l.setState(k, e, entry.rank); err != nil {
				return err
			}
		}
	}
	return nil
}
