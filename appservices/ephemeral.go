package appservices

import (
	"context"
	"crypto/rand"

	"github.com/go-json-experiment/json"

	"hansa/homeserver/clientsync"
	"hansa/matrix"
	"hansa/storage"
)

// maxTyping is in how many rooms at a time a bridge is told who is typing.
const maxTyping = 100

// tellEphemeral tells a bridge who is typing in the rooms of its users, until ctx ends. What it does not take is not tried again: it would be
// over.
//
// spec: application-service-api#pushing-ephemeral-data
func (rd *reader) tellEphemeral(ctx context.Context) error {
	s := rd.s
	version := s.Ephemeral.Version()
	for ctx.Err() == nil {
		changed := s.Ephemeral.Changed()
		if now := s.Ephemeral.Version(); now > version {
			rooms := s.Ephemeral.TypingSince(version)
			version = now
			if rd.failing.Load() == 0 {
				rd.tellTyping(ctx, rooms[:min(len(rooms), maxTyping)])
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}

func (rd *reader) tellTyping(ctx context.Context, rooms []matrix.RoomID) {
	s := rd.s
	bot, err := s.Accounts.Party(ctx, rd.reg.Bot)
	if err != nil {
		return // nothing is lost that would not be over
	}
	// A look of its own: what session remembers of rooms is session's.
	own := &reader{s: s, reg: rd.reg, interest: map[matrix.RoomID]*interest{}}
	v := &view{rd: own, ctx: ctx, bot: bot, contacts: map[matrix.UserID]*clientsync.Contacts{}, open: map[eye]bool{}, prev: map[matrix.EventID]*storage.Event{}}
	t := &transaction{}
	for _, id := range rooms {
		in, err := own.interestIn(ctx, id)
		if err != nil || len(in.users) == 0 || in.users[0].Membership != "join" {
			continue
		}
		list := []matrix.UserID{}
		for _, u := range s.Ephemeral.Typing(id) {
			if ok, err := v.hears(id, u); ok && err == nil {
				list = append(list, u)
			}
		}
		if open, err := v.isOpen(in.users[0].UserID, id); !open || err != nil {
			continue
		}
		b, err := json.Marshal(map[string]any{"type": "m.typing", "room_id": id, "content": map[string]any{"user_ids": list}}, json.Deterministic(true))
		if err == nil {
			t.add(&t.ephemeral, b)
		}
	}
	if t.empty() || ctx.Err() != nil {
		return
	}
	rd.sending.Lock()
	defer rd.sending.Unlock()
	if err := s.put(ctx, rd.reg, "e-"+rand.Text(), t.body()); err != nil && ctx.Err() == nil {
		s.log.WithField("bridge", rd.reg.ID).WithError(err).Debug("a bridge was not told who is typing")
	}
}
