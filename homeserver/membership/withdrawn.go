package membership

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/auth"
	"hansa/matrix/event"
	"hansa/storage"
)

// errNotHere is the answer to events of rooms that this deployment is not in.
func errNotHere() error { return matrix.NotFound("The room is not known here.") }

// ReceiveOutside takes in an event of a room that this deployment is not in. Only one kind counts: that an invitation of a user of the tenant,
// or the user's knock, is over. It must come from the server through which the invitation came or the knock went, and be signed by
// its sender's server. Of all other events nothing is kept and nothing looked up.
//
// spec: server-server-api#put_matrixfederationv1sendtxnid
func (s *Service) ReceiveOutside(ctx context.Context, as, origin matrix.ServerName, id matrix.RoomID, pdu []byte) error {
	var head struct {
		Type     jsontext.Value `json:"type"`
		StateKey jsontext.Value `json:"state_key"`
	}
	var typ, key string
	if json.Unmarshal(pdu, &head) != nil || json.Unmarshal(head.Type, &typ) != nil || typ != typeMember || json.Unmarshal(head.StateKey, &key) != nil {
		return errNotHere()
	}
	user, err := matrix.ParseUserID(key)
	if err != nil || user.Server() != as {
		return errNotHere()
	}
	asked, err := s.askedAfar(ctx, id, user)
	if err != nil {
		return err
	}
	if asked == nil || origin != asked.Via && origin != asked.Sender.Server() {
		return errNotHere()
	}
	e, err := event.Parse(asked.Version, pdu)
	if err != nil || e.RoomID != id || !e.Is(typeMember, key) || e.HashMismatch {
		return matrix.BadJSON("The event is not right.")
	}
	if m := event.Membership(e); m != auth.Leave && m != auth.Ban {
		return errNotHere()
	}
	if e.Sender == user && asked.Membership == auth.Invite {
		return matrix.Forbidden("Only the user's own server can refuse an invitation.")
	}
	if err := s.checkSignature(ctx, e, e.Sender.Server()); err != nil {
		return matrix.Forbidden("The event is not signed by its sender's server.")
	}
	gone := *asked
	gone.Membership, gone.Sender, gone.EventID, gone.Event, gone.Stripped = event.Membership(e), e.Sender, e.ID, event.Federation(e), nil
	if err := s.DB.Update(ctx, func(tx *storage.Tx) error {
		now, ok, err := tx.FindRemoteMember(id, user)
		if err != nil || !ok || !now.Open() || now.EventID != asked.EventID {
			return err // it has ended meanwhile, or began anew
		}
		return tx.PutRemoteMember(gone)
	}); err != nil {
		return fmt.Errorf("end of an invitation: %w", err)
	}
	return nil
}
