package membership

import (
	"context"
	"errors"
	"net/http"

	"hansa/homeserver/room"
	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/storage"
)

// Follower returns the follower that brings changed display names and avatars into the rooms of those who changed them. It says
// nothing in rooms that say the same already, so that it may be given a notice any number of times.
//
// spec: client-server-api#events-on-change-of-profile-information
func (s *Service) Follower() stream.Follower {
	return stream.Follower{Name: "membership.profiles", Handle: s.follow}
}

func (s *Service) follow(ctx context.Context, entries []storage.Entry, _ int64) error {
	done := map[matrix.UserID]bool{}
	for i := range entries {
		e := &entries[i]
		user := matrix.UserID(e.Ref)
		if e.Kind != storage.KindNotice || e.Name != storage.NoticeProfile || done[user] || !s.Rooms.IsLocal(user.Server()) {
			continue
		}
		done[user] = true
		if err := s.spread(ctx, user); err != nil {
			return err
		}
	}
	return nil
}

// spread brings a user's profile into the rooms that the user is in.
func (s *Service) spread(ctx context.Context, user matrix.UserID) error {
	want, err := s.profile(ctx, user)
	if err != nil {
		return err
	}
	var rooms []matrix.RoomID
	var events map[matrix.RoomID][]*storage.Event
	err = s.DB.View(ctx, func(tx *storage.Tx) error {
		list, err := tx.LoadUserRooms(user)
		rooms = rooms[:0]
		for _, m := range list {
			if m.Membership == auth.Join {
				rooms = append(rooms, m.RoomID)
			}
		}
		if err != nil || len(rooms) == 0 {
			return err
		}
		events, err = tx.LoadMemberEvents(rooms, []matrix.UserID{user})
		return err
	})
	if err != nil {
		return err
	}
	for _, id := range rooms {
		if list := events[id]; len(list) > 0 {
			if err := s.spreadTo(ctx, user, id, want, list[0]); err != nil {
				return err
			}
		}
	}
	return nil
}

// spreadTo brings a profile into one room, where the user's membership was seen. Where it is another one meanwhile, that is looked at: who
// has left and come back with the new name needs no event that says the same.
func (s *Service) spreadTo(ctx context.Context, user matrix.UserID, id matrix.RoomID, want map[string]any, seen *storage.Event) error {
	for try := 0; !says(seen.Event, want); try++ {
		if err := s.pace.wait(ctx); err != nil {
			return err
		}
		err := s.rename(ctx, user, id, want, seen.ID)
		if !errors.Is(err, errMoved) || try == 5 {
			return err
		}
		var durable func() error
		if err := s.Rooms.Look(ctx, id, func(v room.View) { durable = v.Durable() }); err != nil {
			return err
		}
		_ = durable() // whatever became of it, the database has the truth now
		var events map[matrix.RoomID][]*storage.Event
		err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
			events, err = tx.LoadMemberEvents([]matrix.RoomID{id}, []matrix.UserID{user})
			return err
		})
		if err != nil || len(events[id]) == 0 {
			return err
		}
		seen = events[id][0]
	}
	return nil
}

// says tells whether a member event has this display name and avatar.
func says(e *event.Event, want map[string]any) bool {
	for _, field := range []string{"displayname", "avatar_url"} {
		has, _ := event.ContentString(e, field)
		if wanted, _ := want[field].(string); has != wanted {
			return false
		}
	}
	return true
}

// errMoved says that a membership is not the one that was looked at any more.
var errMoved = errors.New("membership: the membership has changed meanwhile")

// rename writes a user's name and avatar into a room where the membership is the one that was seen. That policy or the room forbid it is no
// failure.
func (s *Service) rename(ctx context.Context, user matrix.UserID, id matrix.RoomID, want map[string]any, seen matrix.EventID) error {
	party, err := s.Parties.Party(ctx, user)
	if err != nil {
		return err
	}
	extra := content{}
	for k, v := range want {
		extra[k] = v
	}
	d, err := s.member(ctx, Caller{UserID: user, Subject: party}, id, user, auth.Join, extra, false)
	if err != nil {
		return err
	}
	d.Given = func(v room.View) error {
		if v.Membership(user) != auth.Join {
			return room.ErrUnknownRoom // left in the meantime: a name must not bring anybody back
		}
		if v.MemberEvent(user) != seen {
			return errMoved
		}
		return nil
	}
	_, err = s.Rooms.Send(ctx, d)
	var refused *matrix.Error
	switch {
	case errors.Is(err, room.ErrUnknownRoom):
		return nil
	case errors.As(err, &refused) && refused.Status < http.StatusInternalServerError:
		s.log.WithFields(map[string]any{"user_id": user, "room_id": id, "err": err}).Info("a changed profile was not written into a room")
		return nil
	}
	return err
}

// absent makes nothing of storage.ErrNotFound.
func absent(err error) error {
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	return err
}
