package membership

import (
	"context"
	"errors"

	"hansa/homeserver/room"
	"hansa/homeserver/stream"
	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/storage"
)

// Leavers returns the follower that takes users out of all rooms when their account is closed. Whoever is out already stays
// out, so that it may be given a notice any number of times.
//
// spec: client-server-api#account-deactivation
func (s *Service) Leavers() stream.Follower {
	return stream.Follower{Name: "membership.leavers", Handle: s.followClosed}
}

func (s *Service) followClosed(ctx context.Context, entries []storage.Entry, _ int64) error {
	seen := map[matrix.UserID]bool{}
	var users []matrix.UserID
	for i := range entries {
		user := matrix.UserID(entries[i].Ref)
		if entries[i].Kind == storage.KindNotice && entries[i].Name == storage.NoticeSession && !seen[user] && s.Rooms.IsLocal(user.Server()) {
			seen[user] = true
			users = append(users, user)
		}
	}
	if len(users) == 0 {
		return nil
	}
	var closed []matrix.UserID
	var rooms []storage.Member
	var afar []storage.RemoteMember
	err := s.DB.View(ctx, func(tx *storage.Tx) error {
		closed = closed[:0]
		list, err := tx.LoadUsers(users)
		if err != nil {
			return err
		}
		for _, u := range list {
			if u.Deactivated {
				closed = append(closed, u.ID)
			}
		}
		if rooms, err = tx.LoadUsersRooms(closed); err != nil {
			return err
		}
		afar = afar[:0]
		for _, u := range closed {
			list, err := tx.LoadRemoteMembers(u, 0)
			if err != nil {
				return err
			}
			afar = append(afar, list...)
		}
		return nil
	})
	if err != nil || len(closed) == 0 {
		return err
	}
	for i := range afar {
		if afar[i].Open() {
			rooms = append(rooms, storage.Member{RoomID: afar[i].RoomID, UserID: afar[i].UserID, Membership: afar[i].Membership})
		}
	}
	for _, m := range rooms {
		if m.Membership != auth.Join && m.Membership != auth.Invite && m.Membership != auth.Knock {
			continue
		}
		if err := s.pace.wait(ctx); err != nil {
			return err
		}
		party, err := s.Parties.Party(ctx, m.UserID)
		if err != nil {
			return err
		}
		err = s.Leave(ctx, Caller{UserID: m.UserID, Subject: party}, m.RoomID, "")
		var refused *matrix.Error
		if errors.As(err, &refused) && refused.Status < 500 || errors.Is(err, room.ErrUnknownRoom) {
			s.log.WithError(err).WithField("room_id", m.RoomID).Warn("a closed account could not leave a room")
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}
