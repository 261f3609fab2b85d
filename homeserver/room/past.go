package room

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/policy"
	"hansa/storage"
)

// What partners may see of a room's past: whoever is in a room with a partner shows its messages to the partner's server, and a room with an
// open history has that server hand them to whomever it lets in later. So policy may oblige a room to a history visibility before somebody of
// another domain comes in (hidePast), and in rooms with other servers it is set back where somebody else has changed it (govern).

// errOpenPast is the answer where a room would have to hide its past and nobody of ours can make it.
func errOpenPast() *matrix.Error {
	return matrix.Forbidden("People of other organisations may come only into rooms that do not show them the past. Somebody who may change the history visibility of this room must do so first.")
}

// ShowsMore tells whether a history visibility shows more than another one, which is the most that is allowed; empty allows everything. What
// is no history visibility shows most.
func ShowsMore(visibility, most string) bool {
	return most != "" && openness(visibility) > openness(most)
}

func openness(visibility string) int {
	if i := slices.Index([]string{visibleJoined, visibleInvited, "shared", "world_readable"}, visibility); i >= 0 {
		return i
	}
	return 4
}

// stricter is the one of two most open visibilities that allows less.
func stricter(a, b string) string {
	if a == "" || ShowsMore(a, b) {
		return b
	}
	return a
}

// opens tells whether the question is about somebody who gets nearer to the room's history than before.
func opens(in *policy.Input) bool {
	return in.Point == policy.RoomInvite || in.Point == policy.RoomJoin && in.Room.Membership != auth.Join
}

// hidePast makes a room show no more of its past to newcomers than most, in the name of a user who acts in it if that one may, else of the most
// powerful one of ours who does. Where nobody may, the answer is 403.
func (s *Service) hidePast(ctx context.Context, id matrix.RoomID, most string, first matrix.UserID) error {
	var by matrix.UserID
	err := s.Look(ctx, id, func(v View) {
		if ShowsMore(v.historyVisibility(), most) {
			by = v.l.whoMay(s, typeHistory, first)
		} else {
			by = "" // somebody else was faster
			most = ""
		}
	})
	switch {
	case err != nil || most == "":
		return err
	case by == "":
		return errOpenPast()
	}
	empty := ""
	_, err = s.Send(ctx, Draft{RoomID: id, Sender: by, Type: typeHistory, StateKey: &empty, Content: Object(map[string]any{"history_visibility": most})})
	return err
}

func (v View) historyVisibility() string {
	if e := v.State(typeHistory, ""); e != nil {
		s, _ := event.ContentString(e, "history_visibility")
		return s
	}
	return "shared"
}

// whoMay is a joined user of ours who may send a state event: the given one, else the most powerful one. The caller holds l.mu.
func (l *live) whoMay(s *Service, typ string, first matrix.UserID) matrix.UserID {
	if l.members[first].membership == auth.Join && s.IsLocal(first.Server()) && l.rules.CanSend(first, typ, true) {
		return first
	}
	var may []matrix.UserID
	for user, m := range l.members {
		if m.membership == auth.Join && s.IsLocal(user.Server()) && l.rules.CanSend(user, typ, true) {
			may = append(may, user)
		}
	}
	if len(may) == 0 {
		return ""
	}
	return slices.MinFunc(may, func(a, b matrix.UserID) int {
		return cmp.Or(cmp.Compare(l.rules.UserLevel(b), l.rules.UserLevel(a)), cmp.Compare(a, b))
	})
}

// governPast sets the history visibility of a room with other servers back to what policy allows, where one of ours can.
func (s *Service) governPast(ctx context.Context, id matrix.RoomID, c *composition) error {
	if !ShowsMore(c.visibility, c.most) {
		return nil
	}
	err := s.hidePast(ctx, id, c.most, "")
	var refused *matrix.Error
	if errors.As(err, &refused) && refused.Status < 500 {
		s.log.WithField("room_id", id).WithError(err).Info("a room with other servers shows more of its past than policy wants, and nobody of ours can change it")
	}
	return fatal(err)
}

// findOpenPasts adds those of some rooms that show more of their past than is allowed.
func (s *Service) findOpenPasts(ctx context.Context, most map[matrix.RoomID]string, due map[matrix.RoomID]bool) error {
	ids := make([]matrix.RoomID, 0, len(most))
	for id := range most {
		ids = append(ids, id)
	}
	for some := range slices.Chunk(ids, releaseStep) {
		var found map[matrix.RoomID][]*storage.Event
		err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
			found, err = tx.LoadStateTypes(some, []string{typeHistory})
			return err
		})
		if err != nil {
			return err
		}
		for _, id := range some {
			visibility := visibilityOf(nil)
			for _, e := range found[id] {
				if *e.StateKey == "" {
					visibility = visibilityOf(e)
				}
			}
			if ShowsMore(visibility, most[id]) {
				due[id] = true
			}
		}
	}
	return nil
}
