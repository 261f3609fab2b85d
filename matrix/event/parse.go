package event

import (
	"bytes"
	"encoding/base64"
	"slices"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
)

// The limits of a PDU.
const (
	// MaxKeyLength is the most bytes of type and state_key.
	MaxKeyLength = 255
	// MaxPrevEvents and MaxAuthEvents are the most parents and authorising events.
	MaxPrevEvents, MaxAuthEvents = 20, 10
	// maxRawSize is where reading stops, before white space, escapes and unsigned are gone.
	maxRawSize = 8 * MaxSize
)

// ParseOptions tell how much of the form of a PDU is enforced.
type ParseOptions struct {
	// AnyNumberOfParents lifts the limits on prev_events and auth_events, as answers to /backfill demand.
	AnyNumberOfParents bool
}

// Parse reads a PDU that came from outside. It checks the form, the size and the content hash, but no signature. The
// result holds the redacted event where the content hash does not match. The error is a *matrix.Error: M_NOT_JSON,
// M_BAD_JSON or M_TOO_LARGE; the event must then be dropped.
//
// spec: server-server-api#pdus
// spec: server-server-api#validating-hashes-and-signatures-on-received-events
func Parse(v *matrix.RoomVersion, raw []byte) (*Event, error) {
	return ParseWith(v, raw, ParseOptions{})
}

// ParseWith is Parse with options.
func ParseWith(v *matrix.RoomVersion, raw []byte, options ParseOptions) (*Event, error) {
	if len(raw) > maxRawSize {
		return nil, tooLarge("The event has %d bytes.", len(raw))
	}
	object, err := canonicaljson.AppendWithout(make([]byte, 0, len(raw)), raw, v.StrictCanonicalJSON, keyUnsigned)
	if err != nil {
		return nil, canonicaljson.AsMatrix(err)
	}
	if len(object) == 0 || object[0] != '{' {
		return nil, matrix.BadJSON("An event must be a JSON object.")
	}
	object, signatures := canonicaljson.Cut(object, keySignatures)
	if signatures != nil && signatures[0] != '{' {
		return nil, matrix.BadJSON("signatures must be an object.")
	}
	e := &Event{Version: v, JSON: object, Signatures: signatures}
	if size := federationSize(e); size > MaxSize {
		return nil, tooLarge("The event has %d bytes, more than %d.", size, MaxSize)
	}
	if err := e.read(true); err != nil {
		return nil, err
	}
	if err := e.checkForm(options); err != nil {
		return nil, err
	}
	if v.EventIDHash {
		e.ID = hashID(v, referenceHash(v, e.Type, object))
	}
	if err := e.checkRoom(); err != nil {
		return nil, err
	}
	if contentHashMatches(object) {
		return e, nil
	}
	e.HashMismatch = true
	return Redact(e)
}

// ParseStored reads an event from our own database: e.JSON and e.Signatures as they were. Nothing is verified beyond
// what is needed to read it.
func ParseStored(v *matrix.RoomVersion, object []byte, id matrix.EventID, signatures []byte) (*Event, error) {
	e := &Event{Version: v, ID: id, JSON: object, Signatures: signatures}
	if err := e.read(false); err != nil {
		return nil, err
	}
	if v.RoomIDHash && e.Type == "m.room.create" && e.RoomID == "" && len(id) > 1 {
		e.RoomID = createRoomID(id)
	}
	return e, nil
}

// Intact tells whether an event from our own database is what was stored: its hashes say so. Nothing is known of the members of an
// event of room versions 1 and 2 that survive redaction once the others are gone.
func Intact(e *Event) bool {
	if e.Version.EventIDHash && hashID(e.Version, referenceHash(e.Version, e.Type, e.JSON)) != e.ID {
		return false
	}
	if contentHashMatches(e.JSON) {
		return true
	}
	// The content hash no longer matches what was redacted; then there must be nothing left to redact.
	return bytes.Equal(AppendRedacted(make([]byte, 0, len(e.JSON)), e), e.JSON)
}

func tooLarge(format string, args ...any) *matrix.Error {
	return matrix.Errorf(413, matrix.CodeTooLarge, format, args...)
}

// seen notes which members an event has.
type seen uint16

const (
	seenContent seen = 1 << iota
	seenDepth
	seenTimestamp
	seenPrevEvents
	seenAuthEvents
	seenSender
	seenType
	seenRoomID
	seenEventID

	seenAll = seenContent | seenDepth | seenTimestamp | seenPrevEvents | seenAuthEvents | seenSender | seenType
)

// read fills the fields from JSON, once. Where strange is true the bytes come from outside and identifiers are checked.
func (e *Event) read(strange bool) error {
	var have seen
	at := 1
	for key, value := range canonicaljson.Members(e.JSON) {
		if e.signaturesAt == 0 && string(key) > keySignatures {
			e.signaturesAt = at
		}
		at += len(key) + 3 + len(value) + 1
		bit, err := e.readMember(key, value, strange)
		if err != nil {
			return err
		}
		have |= bit
	}
	if e.signaturesAt == 0 {
		e.signaturesAt = len(e.JSON) - 1
	}
	if at != max(len(e.JSON), 1) && have != 0 {
		return matrix.BadJSON("The event is not in canonical form.")
	}
	if e.Type == "m.room.redaction" {
		e.readRedacts()
	}
	want := seenAll
	if !e.Version.EventIDHash {
		want |= seenEventID
	}
	if !e.Version.RoomIDHash || e.Type != "m.room.create" {
		want |= seenRoomID
	} else if have&seenRoomID != 0 {
		return matrix.BadJSON("m.room.create must not have a room_id in room version %s.", e.Version.ID)
	}
	if missing := want &^ have; missing != 0 {
		return matrix.BadJSON("The event lacks %s.", missing.first())
	}
	return nil
}

func (s seen) first() string {
	names := [...]string{
		"content", "depth", "origin_server_ts", "prev_events", "auth_events", "sender", "type", "room_id", "event_id",
	}
	for i, name := range names {
		if s&(1<<i) != 0 {
			return name
		}
	}
	return "a member"
}

// readMember reads one top-level member. Unknown ones stay in JSON and mean nothing.
func (e *Event) readMember(key, value []byte, strange bool) (have seen, err error) {
	ok := true
	switch string(key) {
	case "content":
		e.Content, have = value, seenContent
		ok = value[0] == '{'
	case "depth":
		e.Depth, ok = canonicaljson.Int(value)
		have, ok = seenDepth, ok && e.Depth >= 0 && e.Depth <= e.Version.MaxDepth
	case "origin_server_ts":
		e.OriginServerTS, ok = canonicaljson.Int(value)
		have = seenTimestamp
	case "prev_events":
		e.PrevEvents, ok = e.readReferences(value, strange)
		have = seenPrevEvents
	case "auth_events":
		e.AuthEvents, ok = e.readReferences(value, strange)
		have = seenAuthEvents
	case "event_id":
		// spec: rooms/v3#event-format
		if e.Version.EventIDHash {
			return 0, nil
		}
		return seenEventID, e.readEventID(value, strange)
	case "room_id":
		var s string
		s, ok = canonicaljson.String(value)
		e.RoomID, have = matrix.RoomID(s), seenRoomID
		if strange && ok {
			_, err = matrix.ParseRoomID(s)
		}
	case "sender":
		var s string
		s, ok = canonicaljson.String(value)
		e.Sender, have = matrix.UserID(s), seenSender
		if strange && ok {
			_, err = matrix.ParseUserID(s)
		}
	case "state_key":
		e.stateKey, ok = canonicaljson.String(value)
		e.StateKey = &e.stateKey
		ok = ok && len(e.stateKey) <= MaxKeyLength
	case "type":
		e.Type, ok = typeName(value)
		have, ok = seenType, ok && len(e.Type) <= MaxKeyLength
	}
	if err != nil || !ok {
		return 0, matrix.BadJSON("The event has a malformed %s.", key)
	}
	return have, nil
}

func (e *Event) readEventID(value []byte, strange bool) error {
	s, ok := canonicaljson.String(value)
	id, err := matrix.ParseEventID(s)
	if strange && err == nil {
		_, err = matrix.ParseServerName(string(id.Server()))
	}
	if !ok || err != nil {
		return matrix.BadJSON("The event has a malformed event_id.")
	}
	e.ID = id
	return nil
}

// readReferences reads prev_events or auth_events: IDs, or pairs of an ID and hashes in room versions 1 and 2.
func (e *Event) readReferences(array []byte, strange bool) ([]matrix.EventID, bool) {
	if len(array) < 2 || array[0] != '[' {
		return nil, false
	}
	ids := make([]matrix.EventID, 0, bytes.Count(array, []byte{'$'}))
	for ref := range canonicaljson.Elements(array) {
		if e.Version.EventFormat == matrix.EventFormatV1 {
			var ok bool
			if ref, ok = pairID(ref); !ok {
				return nil, false
			}
		}
		id, ok := canonicaljson.String(ref)
		if !ok {
			return nil, false
		}
		if strange {
			if _, err := matrix.ParseEventID(id); err != nil {
				return nil, false
			}
		}
		ids = append(ids, matrix.EventID(id))
	}
	return ids, true
}

// pairID is the ID of a reference of room versions 1 and 2.
func pairID(pair []byte) (id []byte, ok bool) {
	n := 0
	for part := range canonicaljson.Elements(pair) {
		switch n++; {
		case n == 1:
			id = part
		case n > 2 || part[0] != '{':
			return nil, false
		}
	}
	return id, n == 2
}

// readRedacts finds the target of a redaction. A malformed one is no target; the event stays what it is.
//
// spec: rooms/v11#moving-the-redacts-property-of-mroomredaction-events-to-a-content-property
func (e *Event) readRedacts() {
	from := []byte(e.Content)
	if !e.Version.RedactsInContent {
		from = e.JSON
	}
	value, _ := canonicaljson.Find(from, "redacts")
	s, _ := canonicaljson.String(value)
	e.Redacts, _ = matrix.ParseEventID(s)
}

// checkForm checks what needs more than one member.
func (e *Event) checkForm(options ParseOptions) error {
	if len(e.PrevEvents) == 0 && e.Type != "m.room.create" {
		return matrix.BadJSON("The event has no prev_events.")
	}
	for _, ids := range [...][]matrix.EventID{e.PrevEvents, e.AuthEvents} {
		if e.ID != "" && slices.Contains(ids, e.ID) {
			return matrix.BadJSON("The event refers to itself.")
		}
	}
	if options.AnyNumberOfParents {
		return nil
	}
	if len(e.PrevEvents) > MaxPrevEvents || len(e.AuthEvents) > MaxAuthEvents {
		return matrix.BadJSON("The event has %d prev_events and %d auth_events, the most are %d and %d.",
			len(e.PrevEvents), len(e.AuthEvents), MaxPrevEvents, MaxAuthEvents)
	}
	return nil
}

// checkRoom checks the form of the room ID that the version demands, and derives the one of a create event.
//
// spec: rooms/v12#event-format
func (e *Event) checkRoom() error {
	if !e.Version.RoomIDHash {
		if e.RoomID.Server() == "" {
			return matrix.BadJSON("The room ID has no server name, which room version %s needs.", e.Version.ID)
		}
		return nil
	}
	if e.Type == "m.room.create" {
		e.RoomID = createRoomID(e.ID)
	}
	if e.RoomID.Server() != "" {
		return matrix.BadJSON("The room ID is not a hash, which room version %s needs.", e.Version.ID)
	}
	create := CreateEventID(e.Version, e.RoomID)
	for _, id := range e.AuthEvents {
		if id == create {
			return matrix.BadJSON("auth_events must not hold the create event in room version %s.", e.Version.ID)
		}
	}
	return nil
}

// contentHashMatches tells whether hashes.sha256 is right. What cannot be read is wrong.
func contentHashMatches(object []byte) bool {
	hashes, _ := canonicaljson.Find(object, keyHashes)
	value, _ := canonicaljson.Find(hashes, "sha256")
	if len(value) < 2 || value[0] != '"' {
		return false
	}
	text := bytes.TrimRight(value[1:len(value)-1], "=")
	var got [33]byte
	if base64.RawStdEncoding.DecodedLen(len(text)) != 32 {
		return false
	}
	n, err := base64.RawStdEncoding.Decode(got[:], text)
	want := ContentHash(object)
	return err == nil && n == 32 && bytes.Equal(got[:32], want[:])
}

// typeName decodes the type of an event without a copy for the common ones.
func typeName(value []byte) (string, bool) {
	switch string(value) {
	case `"m.room.message"`:
		return "m.room.message", true
	case `"m.room.encrypted"`:
		return "m.room.encrypted", true
	case `"m.room.member"`:
		return "m.room.member", true
	case `"m.reaction"`:
		return "m.reaction", true
	case `"m.room.redaction"`:
		return "m.room.redaction", true
	case `"m.room.create"`:
		return "m.room.create", true
	case `"m.room.power_levels"`:
		return "m.room.power_levels", true
	}
	return canonicaljson.String(value)
}
