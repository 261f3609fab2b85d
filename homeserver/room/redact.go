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
	if target.Is(auth.TypeCreate, "") || target.Is(typeServerACL, "") {
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

// redact applies a redaction that came in.
func (j *judgement) redact(a *storage.Append) error {
	by, id := j.e.ID, j.e.Redacts
	if j.e.Type != typeRedaction || id == "" || id == by {
		return nil
	}
	target, err := j.find(id)
	switch {
	case err != nil:
		return unavailable(err)
	case target == nil:
		j.waiting[id] = append(j.waiting[id], by)
		a.Also = func(tx *storage.Tx) error { return tx.AddPendingRedaction(id, by) }
		return nil
	case target.RoomID != j.l.id:
		return nil
	}
	list, err := j.l.redactions(j.e, target.Event)
	if err == nil {
		a.Redactions = list
	}
	return nil // a redaction without the power to redact is an event without effect
}

// awaited applies the redactions that came before the event: it is stored and shown without what they take away.
func (j *judgement) awaited(a *storage.Append) error {
	for _, id := range j.waiting[j.e.ID] {
		r, err := j.find(id)
		if err != nil {
			return unavailable(err)
		}
		if r == nil || r.RoomID != j.l.id || r.Flags.Hidden() {
			continue
		}
		list, err := j.l.redactions(r.Event, j.e)
		if err != nil {
			continue // it may not redact this
		}
		e, err := event.Redact(j.e)
		if err != nil {
			return err
		}
		a.Redactions = append(a.Redactions, list...)
		a.Events[0].Event = e
		return nil
	}
	return nil
}
