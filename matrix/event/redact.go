package event

import (
	"crypto/sha256"
	"encoding/base64"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
)

// keepsTop tells whether a top-level key survives redaction.
//
// spec: client-server-api#redactions
// spec: rooms/v11#redactions
func keepsTop(v *matrix.RoomVersion, key string) bool {
	switch key {
	case "event_id", "type", "room_id", "sender", "state_key", "content", keyHashes, keySignatures, "depth",
		"prev_events", "auth_events", "origin_server_ts":
		return true
	case "prev_state", "origin", "membership":
		return v.Redaction < matrix.RedactionV11
	}
	return false
}

// keepsContent tells whether a key of the content of an event of this type survives redaction. For third_party_invite of
// room version 11 that is only half the truth: see appendRedactedContent.
//
// spec: rooms/v1#redactions
// spec: rooms/v6#redactions
// spec: rooms/v8#redactions
// spec: rooms/v9#redactions
// spec: rooms/v11#redactions
func keepsContent(v *matrix.RoomVersion, typ, key string) bool {
	switch typ {
	case "m.room.member":
		switch key {
		case "membership":
			return true
		case "join_authorised_via_users_server":
			return v.Redaction >= matrix.RedactionV9
		case "third_party_invite":
			return v.Redaction >= matrix.RedactionV11
		}
	case "m.room.create":
		return key == "creator" || v.Redaction >= matrix.RedactionV11
	case "m.room.join_rules":
		return key == "join_rule" || key == "allow" && v.Redaction >= matrix.RedactionV8
	case "m.room.power_levels":
		switch key {
		case "ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default":
			return true
		case "invite":
			return v.Redaction >= matrix.RedactionV11
		}
	case "m.room.aliases":
		return key == "aliases" && v.Redaction < matrix.RedactionV6
	case "m.room.history_visibility":
		return key == "history_visibility"
	case "m.room.redaction":
		return key == "redacts" && v.Redaction >= matrix.RedactionV11
	}
	return false
}

// hasKept tells whether any key of the content of this type can survive.
func hasKept(typ string) bool {
	switch typ {
	case "m.room.member", "m.room.create", "m.room.join_rules", "m.room.power_levels", "m.room.aliases",
		"m.room.history_visibility", "m.room.redaction":
		return true
	}
	return false
}

// appendRedactedContent appends what redaction leaves of a content object.
func appendRedactedContent(dst []byte, v *matrix.RoomVersion, typ string, content []byte) []byte {
	if !hasKept(typ) {
		return append(dst, '{', '}')
	}
	dst = append(dst, '{')
	start := len(dst)
	for key, value := range canonicaljson.Members(content) {
		if !keepsContent(v, typ, string(key)) {
			continue
		}
		partial := typ == "m.room.member" && string(key) == "third_party_invite"
		if partial && value[0] != '{' {
			continue
		}
		if len(dst) > start {
			dst = append(dst, ',')
		}
		dst = append(append(append(dst, '"'), key...), '"', ':')
		if !partial {
			dst = append(dst, value...)
			continue
		}
		dst = append(dst, '{')
		if signed, ok := canonicaljson.Find(value, "signed"); ok {
			dst = append(append(dst, `"signed":`...), signed...)
		}
		dst = append(dst, '}')
	}
	return append(dst, '}')
}

// AppendRedactedJSON appends the redacted form of an event that is given as canonical JSON. Signatures are kept if they
// are there. An event without a type loses all of its content.
//
// spec: client-server-api#redactions
func AppendRedactedJSON(dst []byte, v *matrix.RoomVersion, object []byte) []byte {
	raw, _ := canonicaljson.Find(object, "type")
	typ, _ := canonicaljson.String(raw)
	return appendRedacted(dst, v, typ, object, true)
}

func appendRedacted(dst []byte, v *matrix.RoomVersion, typ string, object []byte, signatures bool) []byte {
	dst = append(dst, '{')
	start := len(dst)
	for key, value := range canonicaljson.Members(object) {
		if !keepsTop(v, string(key)) || !signatures && string(key) == keySignatures {
			continue
		}
		if len(dst) > start {
			dst = append(dst, ',')
		}
		dst = append(append(append(dst, '"'), key...), '"', ':')
		if string(key) == "content" {
			dst = appendRedactedContent(dst, v, typ, value)
		} else {
			dst = append(dst, value...)
		}
	}
	return append(dst, '}')
}

// AppendRedacted appends the canonical JSON of the redacted event without signatures: the bytes that are signed, and
// whose hash is the event ID.
//
// spec: server-server-api#signing-events
func AppendRedacted(dst []byte, e *Event) []byte {
	return appendRedacted(dst, e.Version, e.Type, e.JSON, false)
}

// Redact returns the event as it is after a redaction. Its ID and its signatures stay valid.
//
// spec: client-server-api#redactions
func Redact(e *Event) (*Event, error) {
	object := AppendRedacted(make([]byte, 0, len(e.JSON)), e)
	r, err := ParseStored(e.Version, object, e.ID, e.Signatures)
	if err != nil {
		return nil, err
	}
	r.RoomID, r.HashMismatch = e.RoomID, e.HashMismatch
	return r, nil
}

// ContentHash is the hash that protects the whole event, of an event given as canonical JSON.
//
// spec: server-server-api#calculating-the-content-hash-for-an-event
func ContentHash(object []byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte{'{'})
	first := true
	for key, value := range canonicaljson.Members(object) {
		switch string(key) {
		case keyHashes, keySignatures, keyUnsigned:
			continue
		}
		if !first {
			h.Write([]byte{','})
		}
		first = false
		// The value ends where it stands in object, and the key begins one quote before itself: one run of bytes.
		h.Write([]byte{'"'})
		h.Write(key)
		h.Write([]byte{'"', ':'})
		h.Write(value)
	}
	h.Write([]byte{'}'})
	return [sha256.Size]byte(h.Sum(nil))
}

// ReferenceHash is the hash of the redacted event, from which the event ID of room version 3 and later is made.
//
// spec: server-server-api#calculating-the-reference-hash-for-an-event
func ReferenceHash(v *matrix.RoomVersion, object []byte) [sha256.Size]byte {
	raw, _ := canonicaljson.Find(object, "type")
	typ, _ := canonicaljson.String(raw)
	return referenceHash(v, typ, object)
}

func referenceHash(v *matrix.RoomVersion, typ string, object []byte) [sha256.Size]byte {
	var room [1536]byte
	return sha256.Sum256(appendRedacted(room[:0], v, typ, object, false))
}

// hashID is the event ID that a reference hash spells in this room version.
//
// spec: rooms/v3#event-ids
// spec: rooms/v4#event-ids
func hashID(v *matrix.RoomVersion, hash [sha256.Size]byte) matrix.EventID {
	encoding := base64.RawURLEncoding
	if v.EventFormat == matrix.EventFormatV3 {
		encoding = base64.RawStdEncoding
	}
	var room [1 + 43]byte
	room[0] = '$'
	encoding.Encode(room[1:], hash[:])
	return matrix.EventID(room[:])
}

// createRoomID is the ID of the room that a create event of room version 12 makes, and of the create event of such a room.
//
// spec: rooms/v12#event-format
func createRoomID(id matrix.EventID) matrix.RoomID { return "!" + matrix.RoomID(id[1:]) }

// CreateEventID is the ID of the create event of a room of version 12 or later, empty for rooms of other versions.
func CreateEventID(v *matrix.RoomVersion, room matrix.RoomID) matrix.EventID {
	if !v.RoomIDHash || len(room) < 2 {
		return ""
	}
	return "$" + matrix.EventID(room[1:])
}
