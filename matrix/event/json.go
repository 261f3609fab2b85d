package event

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
)

// The top-level keys that are no part of what is hashed.
const (
	keySignatures = "signatures"
	keyUnsigned   = "unsigned"
	keyHashes     = "hashes"
)

// Federation is the event as servers exchange it: e.JSON with the signatures at their sorted place.
//
// spec: server-server-api#pdus
func Federation(e *Event) []byte {
	return AppendFederation(make([]byte, 0, federationSize(e)), e)
}

func federationSize(e *Event) int {
	return len(e.JSON) + len(`"signatures":{},`) + max(0, len(e.Signatures)-2)
}

// AppendFederation appends what Federation returns.
func AppendFederation(dst []byte, e *Event) []byte {
	signatures := []byte(e.Signatures)
	if len(signatures) == 0 {
		signatures = []byte("{}")
	}
	at := e.signaturesAt
	if at == 0 {
		at = canonicaljson.Place(e.JSON, keySignatures)
	}
	return canonicaljson.AppendInserted(dst, e.JSON, at, keySignatures, signatures)
}

// WithSignatures returns a copy of the event with other signatures, which must be a canonical object or nil.
func (e *Event) WithSignatures(raw jsontext.Value) *Event {
	c := *e
	c.Signatures = raw
	return &c
}

// AppendClient appends the event as clients see it, without unsigned and without the closing brace, so that callers go
// on with `,"unsigned":{...}}` or `}`. The target of a redaction stands both at the top and in content, whatever the room
// version, because clients of either age look in one place only.
//
// spec: client-server-api#room-event-format
func AppendClient(dst []byte, e *Event, withRoomID bool) []byte {
	dst = append(dst, `{"content":`...)
	if e.Redacts != "" && !e.Version.RedactsInContent {
		dst = appendContentRedacts(dst, e)
	} else {
		dst = append(dst, e.Content...)
	}
	dst = canonicaljson.AppendString(append(dst, `,"event_id":`...), string(e.ID))
	dst = appendInt(append(dst, `,"origin_server_ts":`...), e.OriginServerTS)
	if e.Redacts != "" {
		dst = canonicaljson.AppendString(append(dst, `,"redacts":`...), string(e.Redacts))
	}
	if withRoomID {
		dst = canonicaljson.AppendString(append(dst, `,"room_id":`...), string(e.RoomID))
	}
	dst = canonicaljson.AppendString(append(dst, `,"sender":`...), string(e.Sender))
	if e.StateKey != nil {
		dst = canonicaljson.AppendString(append(dst, `,"state_key":`...), *e.StateKey)
	}
	return canonicaljson.AppendString(append(dst, `,"type":`...), e.Type)
}

// appendContentRedacts appends the content of an old redaction with the target added, in place of any that the sender
// put there.
func appendContentRedacts(dst []byte, e *Event) []byte {
	content, _ := canonicaljson.Cut(bytes.Clone(e.Content), "redacts")
	target := canonicaljson.AppendString(nil, string(e.Redacts))
	return canonicaljson.AppendInserted(dst, content, canonicaljson.Place(content, "redacts"), "redacts", target)
}

// ContentField returns one top-level member of the content. The key must need no JSON escapes.
func ContentField(e *Event, key string) (jsontext.Value, bool) {
	v, ok := canonicaljson.Find(e.Content, key)
	return v, ok
}

// ContentString returns a top-level member of the content that is a string; anything else counts as absent.
func ContentString(e *Event, key string) (string, bool) {
	v, ok := canonicaljson.Find(e.Content, key)
	if !ok {
		return "", false
	}
	return canonicaljson.String(v)
}

// MemberContent is the content of m.room.member as far as the server reads it. What has the wrong type is absent.
//
// spec: client-server-api#mroommember
type MemberContent struct {
	Membership  string
	DisplayName string
	AvatarURL   string
	Reason      string
	IsDirect    bool
	// AuthorisedVia is join_authorised_via_users_server.
	AuthorisedVia matrix.UserID
	// ThirdPartyInvite is the member as it stands in JSON, nil if absent.
	ThirdPartyInvite jsontext.Value
}

// Membership is content.membership of an m.room.member event, empty if there is none.
func Membership(e *Event) string {
	v, ok := canonicaljson.Find(e.Content, "membership")
	if !ok {
		return ""
	}
	switch string(v) {
	case `"join"`:
		return "join"
	case `"leave"`:
		return "leave"
	case `"invite"`:
		return "invite"
	case `"ban"`:
		return "ban"
	case `"knock"`:
		return "knock"
	}
	s, _ := canonicaljson.String(v)
	return s
}

// Member reads the content of an m.room.member event.
func Member(e *Event) MemberContent {
	var m MemberContent
	for k, v := range canonicaljson.Members(e.Content) {
		switch string(k) {
		case "membership":
			m.Membership, _ = canonicaljson.String(v)
		case "displayname":
			m.DisplayName, _ = canonicaljson.String(v)
		case "avatar_url":
			m.AvatarURL, _ = canonicaljson.String(v)
		case "reason":
			m.Reason, _ = canonicaljson.String(v)
		case "is_direct":
			m.IsDirect = string(v) == "true"
		case "join_authorised_via_users_server":
			s, _ := canonicaljson.String(v)
			m.AuthorisedVia = matrix.UserID(s)
		case "third_party_invite":
			m.ThirdPartyInvite = v
		}
	}
	return m
}
