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

// cut returns canonical object without one top-level member, and the value of that member. Where there is none the
// object itself is returned; else the object is changed in place.
func cut(object []byte, key string) (rest, value []byte) {
	start, end, valueAt := span(object, key)
	if start < 0 {
		return object, nil
	}
	value = bytes.Clone(object[valueAt:end])
	return append(object[:start], object[spanEnd(object, start, end):]...), value
}

// span finds a top-level member: where `"key":value` begins and ends, and where its value begins; start is -1 if absent.
// A comma before it (or after it, for the first) belongs to it.
func span(object []byte, key string) (start, end, valueAt int) {
	at := 1
	for k, v := range canonicaljson.Members(object) {
		next := at + len(k) + 3 + len(v)
		if string(k) == key {
			if at > 1 {
				return at - 1, next, next - len(v)
			}
			return at, next, next - len(v)
		}
		at = next + 1
	}
	return -1, 0, 0
}

// spanEnd is end, moved over the comma that follows where the member is the first one.
func spanEnd(object []byte, start, end int) int {
	if start == 1 && object[end] == ',' {
		return end + 1
	}
	return end
}

// insertAt is where a top-level member with this key belongs in a canonical object that does not have it: the position of
// the first greater key, or of the closing brace.
func insertAt(object []byte, key string) int {
	at := 1
	for k, v := range canonicaljson.Members(object) {
		if string(k) > key {
			return at
		}
		at += len(k) + 3 + len(v) + 1
	}
	return len(object) - 1
}

// appendInserted appends object with `"key":value` at its sorted place.
func appendInserted(dst, object []byte, at int, key string, value []byte) []byte {
	dst = append(dst, object[:at]...)
	last := at == len(object)-1
	if last && len(object) > 2 {
		dst = append(dst, ',')
	}
	dst = append(append(append(append(dst, '"'), key...), '"', ':'), value...)
	if !last {
		dst = append(dst, ',')
	}
	return append(dst, object[at:]...)
}

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
		at = insertAt(e.JSON, keySignatures)
	}
	return appendInserted(dst, e.JSON, at, keySignatures, signatures)
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
	content, _ := cut(bytes.Clone(e.Content), "redacts")
	target := canonicaljson.AppendString(nil, string(e.Redacts))
	return appendInserted(dst, content, insertAt(content, "redacts"), "redacts", target)
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
