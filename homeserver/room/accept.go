package room

import (
	"context"
	"errors"
	"net/http"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/storage"
)

// Accept takes in a membership that another server asks this one to let into a room: the event of a send_join, send_leave or send_knock, or
// an invitation of ours that came back with the signature of the invited user's server. It is let in whole or not at all: what the rules of
// the room, its server ACL or policy refuse is 403, and nothing of it is stored. The event is durable when Accept returns; an event that
// was let in before is returned again. Those of other servers are marked, because this server sends them on to the others in the room.
//
// spec: server-server-api#put_matrixfederationv2send_joinroomideventid
// spec: server-server-api#put_matrixfederationv2send_leaveroomideventid
// spec: server-server-api#put_matrixfederationv1send_knockroomideventid
func (s *Service) Accept(ctx context.Context, origin matrix.ServerName, id matrix.RoomID, pdu []byte) (*storage.Event, error) {
	l, err := s.live(ctx, id)
	if errors.Is(err, ErrUnknownRoom) {
		return nil, errNotHere()
	}
	if err != nil {
		return nil, unavailable(err)
	}
	if !l.inhabited(s) {
		return nil, errNotHere() // what is known of the room may be old
	}
	e, err := s.parse(ctx, l.version, id, pdu, event.ParseOptions{})
	if err != nil {
		return nil, refused(err)
	}
	if err := s.mayAsk(origin, e); err != nil {
		return nil, err
	}
	a := &arrival{e: e, strict: true, relayed: !s.IsLocal(e.Sender.Server())}
	s.take(ctx, id, []*arrival{a})
	switch m := (*MissingError)(nil); {
	case errors.As(a.err, &m):
		return nil, matrix.InvalidParam("The event names events that are not known here.")
	case a.err != nil:
		return nil, refused(a.err)
	case a.stored != nil:
		return a.stored, nil
	}
	var known *storage.Event
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) { known, err = tx.LoadEvent(e.ID); return err })
	switch {
	case err != nil:
		return nil, unavailable(err)
	case known.Flags.Hidden():
		return nil, matrix.Forbidden("The event was refused.")
	}
	return known, nil
}

// mayAsk checks that an event is a membership, and that the server that brings it may speak for its user.
func (s *Service) mayAsk(origin matrix.ServerName, e *event.Event) error {
	if e.Type != typeMember || e.StateKey == nil || e.HashMismatch {
		return matrix.BadJSON("The event is not a membership, or its content hash is wrong.")
	}
	switch own := *e.StateKey == string(e.Sender); event.Membership(e) {
	case auth.Join, auth.Leave, auth.Knock:
		if !own || e.Sender.Server() != origin {
			return matrix.Forbidden("A server can ask for its own users only.")
		}
	case auth.Invite:
		if target, err := matrix.ParseUserID(*e.StateKey); err != nil || target.Server() != origin || !s.IsLocal(e.Sender.Server()) {
			return matrix.Forbidden("The invitation is not one of this server's, or not for a user of the server that brings it.")
		}
	default:
		return matrix.BadJSON("The event is no membership that can be asked for.")
	}
	return nil
}

// refused is the answer to a server whose event was not let in.
func refused(err error) error {
	var answer *matrix.Error
	switch {
	case errors.Is(err, ErrUndecided):
		return matrix.Errorf(http.StatusServiceUnavailable, matrix.CodeUnknown, "It cannot be decided now. Please try again.").With("retry_after_ms", 1000)
	case errors.As(err, &answer):
		return answer
	case errors.Is(err, ErrDropped):
		return matrix.Forbidden("The event is malformed or lacks a valid signature.")
	}
	return unavailable(err)
}
