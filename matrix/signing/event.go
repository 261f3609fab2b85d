package signing

import (
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/event"
)

// SignEvent returns the event with a signature of the server added. What is signed is the redacted form, so that the
// signature stays valid after a redaction.
//
// spec: server-server-api#adding-hashes-and-signatures-to-outgoing-events
func SignEvent(e *event.Event, server matrix.ServerName, key Key) *event.Event {
	var room [1536]byte
	return e.WithSignatures(merge(e.Signatures, server, key.ID, key.Sign(event.AppendRedacted(room[:0], e))))
}

// TakeSignature returns the event with the signature of a server by one key added that stands in a signatures object. Whether it is good is
// for VerifyEvent to say.
func TakeSignature(e *event.Event, signatures jsontext.Value, server matrix.ServerName, id KeyID) (*event.Event, error) {
	signature, err := find(signatures, server, id)
	if err != nil {
		return nil, err
	}
	return e.WithSignatures(merge(e.Signatures, server, id, EncodeBase64(signature))), nil
}

// VerifyEvent checks the signature of a server by one key. Whether that key was valid at the time is not judged here.
//
// spec: server-server-api#validating-hashes-and-signatures-on-received-events
func VerifyEvent(e *event.Event, server matrix.ServerName, id KeyID, key PublicKey) error {
	signature, err := find(e.Signatures, server, id)
	if err != nil {
		return err
	}
	var room [1536]byte
	if !key.Verify(event.AppendRedacted(room[:0], e), signature) {
		return fmt.Errorf("%w: %s of %s on %s", ErrBadSignature, id, server, e.ID)
	}
	return nil
}

// RequiredServers lists the servers that must have signed an event: that of the sender (but for an invite that redeems a
// third-party invite, which another server may send), that of the event ID in room versions 1 and 2, and that of the
// user who authorises a restricted join. A name that is not a server name means that nobody can have signed.
//
// spec: server-server-api#validating-hashes-and-signatures-on-received-events
func RequiredServers(e *event.Event) []matrix.ServerName {
	servers := make([]matrix.ServerName, 0, 3)
	add := func(s matrix.ServerName) {
		for _, have := range servers {
			if have == s {
				return
			}
		}
		servers = append(servers, s)
	}
	if !isThirdPartyInvite(e) {
		add(e.Sender.Server())
	}
	if e.Version.EventIDSignature {
		add(e.ID.Server())
	}
	if server, ok := AuthorisingServer(e); ok {
		add(server)
	}
	return servers
}

func isThirdPartyInvite(e *event.Event) bool {
	if e.Type != "m.room.member" || event.Membership(e) != "invite" {
		return false
	}
	_, ok := event.ContentField(e, "third_party_invite")
	return ok
}

// AuthorisingServer is the server of join_authorised_via_users_server, whose signature the authorisation rules demand
// from room version 8 on, whatever the membership. It is empty where the field is there and names no user.
//
// spec: rooms/v8#authorisation-rules
func AuthorisingServer(e *event.Event) (server matrix.ServerName, ok bool) {
	if e.Type != "m.room.member" || !e.Version.Restricted {
		return "", false
	}
	if _, ok = event.ContentField(e, "join_authorised_via_users_server"); !ok {
		return "", false
	}
	s, _ := event.ContentString(e, "join_authorised_via_users_server")
	user, err := matrix.ParseUserID(s)
	if err != nil {
		return "", true
	}
	return user.Server(), true
}
