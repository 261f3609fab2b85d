package event

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
)

// Draft is an event that a user of this server is about to send.
type Draft struct {
	// RoomID is empty for the create event of room version 12.
	RoomID matrix.RoomID
	Type   string
	// StateKey is nil for an event that is no state.
	StateKey *string
	Sender   matrix.UserID
	// Content is any JSON object; nil stands for an empty one.
	Content                jsontext.Value
	PrevEvents, AuthEvents []matrix.EventID
	// Depth is cut to the ceiling of the room version.
	Depth          int64
	OriginServerTS int64
	// Redacts is the target of an m.room.redaction; it is put where the room version wants it. If it is empty, the
	// member redacts of the content counts.
	Redacts matrix.EventID
	// EventID is needed in room versions 1 and 2 and ignored later.
	EventID matrix.EventID
	// ReferenceHash finds the hash of a parent; it is asked in room versions 1 and 2 only, whose references carry it.
	// Without it (or where it finds none) the references carry no hash.
	ReferenceHash func(matrix.EventID) (hash [sha256.Size]byte, ok bool)
}

// signatureRoom is what one signature of the sender's server adds to an event, its server name apart: 86 characters of
// base64 and a key ID of up to 40.
const signatureRoom = len(`"signatures":{"":{"":""}},`) + 86 + 40

// Build makes an event of a draft: canonical JSON, content hash and event ID. The signature comes later and changes
// neither; its size is already counted. A bad content is 400 M_BAD_JSON, a large event 413 M_TOO_LARGE.
//
// spec: server-server-api#adding-hashes-and-signatures-to-outgoing-events
// spec: client-server-api#size-limits
func Build(v *matrix.RoomVersion, d Draft) (*Event, error) {
	if err := checkDraft(v, &d); err != nil {
		return nil, err
	}
	size := 512 + len(d.Content) + 110*(len(d.PrevEvents)+len(d.AuthEvents)+2)
	b := builder{v: v, d: &d, out: make([]byte, 0, size)}
	if err := b.build(); err != nil {
		return nil, err
	}
	if size := len(b.out) + signatureRoom + len(d.Sender.Server()); size > MaxSize {
		return nil, tooLarge("The event would have %d bytes with its signature, more than %d.", size, MaxSize)
	}
	e := &Event{
		Version: v, ID: d.EventID, RoomID: d.RoomID, Type: d.Type, Sender: d.Sender,
		Content:    jsontext.Value(b.out[b.content:b.contentEnd:b.contentEnd]),
		PrevEvents: d.PrevEvents, AuthEvents: d.AuthEvents, Depth: d.Depth, OriginServerTS: d.OriginServerTS,
		Redacts: d.Redacts, JSON: b.out, signaturesAt: b.signaturesAt,
	}
	if d.StateKey != nil {
		e.stateKey = *d.StateKey
		e.StateKey = &e.stateKey
	}
	if v.EventIDHash {
		e.ID = hashID(v, b.referenceHash())
	}
	if v.RoomIDHash && d.Type == "m.room.create" {
		e.RoomID = createRoomID(e.ID)
	}
	return e, nil
}

// checkDraft refuses what no room version allows, and brings the draft into the shape of this one.
func checkDraft(v *matrix.RoomVersion, d *Draft) error {
	switch {
	case len(d.Type) > MaxKeyLength:
		return tooLarge("The event type has %d bytes, more than %d.", len(d.Type), MaxKeyLength)
	case d.StateKey != nil && len(*d.StateKey) > MaxKeyLength:
		return tooLarge("The state key has %d bytes, more than %d.", len(*d.StateKey), MaxKeyLength)
	case d.Type == "":
		return matrix.InvalidParam("The event has no type.")
	case strings.IndexByte(d.Type, 0) >= 0 || d.StateKey != nil && strings.IndexByte(*d.StateKey, 0) >= 0:
		return matrix.InvalidParam("The event type and the state key must not hold the character U+0000.")
	case len(d.PrevEvents) > MaxPrevEvents || len(d.AuthEvents) > MaxAuthEvents:
		return fmt.Errorf("event: %d prev_events and %d auth_events are too many", len(d.PrevEvents), len(d.AuthEvents))
	case len(d.Sender) > matrix.MaxIDLength || len(d.RoomID) > matrix.MaxIDLength:
		return tooLarge("The sender or the room ID has more than %d bytes.", matrix.MaxIDLength)
	case !v.EventIDHash && (d.EventID == "" || len(d.EventID) > matrix.MaxIDLength):
		return fmt.Errorf("event: a draft of room version %s needs an event ID", v.ID)
	case v.RoomIDHash && d.Type == "m.room.create" && d.RoomID != "":
		return fmt.Errorf("event: the create event of room version %s has no room ID", v.ID)
	}
	if v.EventIDHash {
		d.EventID = ""
	}
	if d.Type != "m.room.redaction" {
		d.Redacts = ""
	}
	d.Depth = min(max(d.Depth, 0), v.MaxDepth)
	return nil
}

// builder appends the members of an event in the order of their keys.
type builder struct {
	v                   *matrix.RoomVersion
	d                   *Draft
	out                 []byte
	content, contentEnd int
	// redacts and redactsEnd enclose the top-level member of that name with the comma after it.
	redacts, redactsEnd int
	signaturesAt        int
}

func (b *builder) build() error {
	d := b.d
	b.references(`{"auth_events":[`, d.AuthEvents)
	b.out = append(b.out, `,"content":`...)
	if err := b.appendContent(); err != nil {
		return err
	}
	b.out = appendInt(append(b.out, `,"depth":`...), d.Depth)
	if d.EventID != "" {
		b.out = canonicaljson.AppendString(append(b.out, `,"event_id":`...), string(d.EventID))
	}
	b.out = append(b.out, ',')
	hashesAt := len(b.out)
	b.out = appendInt(append(b.out, `"origin_server_ts":`...), d.OriginServerTS)
	b.references(`,"prev_events":[`, d.PrevEvents)
	b.out = append(b.out, ',')
	b.redacts = len(b.out)
	if d.Redacts != "" && !b.v.RedactsInContent {
		b.out = canonicaljson.AppendString(append(b.out, `"redacts":`...), string(d.Redacts))
		b.out = append(b.out, ',')
	}
	b.redactsEnd = len(b.out)
	if d.RoomID != "" {
		b.out = canonicaljson.AppendString(append(b.out, `"room_id":`...), string(d.RoomID))
		b.out = append(b.out, ',')
	}
	b.out = canonicaljson.AppendString(append(b.out, `"sender":`...), string(d.Sender))
	b.out = append(b.out, ',')
	b.signaturesAt = len(b.out)
	if d.StateKey != nil {
		b.out = canonicaljson.AppendString(append(b.out, `"state_key":`...), *d.StateKey)
		b.out = append(b.out, ',')
	}
	b.out = canonicaljson.AppendString(append(b.out, `"type":`...), d.Type)
	b.out = append(b.out, '}')
	b.insertHash(hashesAt)
	return nil
}

// insertHash hashes what is there so far, all but the hashes, and puts them at their place.
func (b *builder) insertHash(at int) {
	const head, tail, width = `"hashes":{"sha256":"`, `"},`, len(`"hashes":{"sha256":""},`) + 43
	hash := sha256.Sum256(b.out)
	end := len(b.out)
	for range width {
		b.out = append(b.out, 0)
	}
	copy(b.out[at+width:], b.out[at:end])
	copy(b.out[at:], head)
	base64.RawStdEncoding.Encode(b.out[at+len(head):], hash[:])
	copy(b.out[at+width-len(tail):], tail)
	b.redacts += width
	b.redactsEnd += width
	b.signaturesAt += width
}

// references appends prev_events or auth_events.
func (b *builder) references(head string, ids []matrix.EventID) {
	b.out = append(b.out, head...)
	for i, id := range ids {
		if i > 0 {
			b.out = append(b.out, ',')
		}
		if b.v.EventFormat != matrix.EventFormatV1 {
			b.out = canonicaljson.AppendString(b.out, string(id))
			continue
		}
		b.out = canonicaljson.AppendString(append(b.out, '['), string(id))
		b.out = append(b.out, `,{`...)
		if b.d.ReferenceHash != nil {
			if hash, ok := b.d.ReferenceHash(id); ok {
				b.out = append(b.out, `"sha256":"`...)
				b.out = base64.RawStdEncoding.AppendEncode(b.out, hash[:])
				b.out = append(b.out, '"')
			}
		}
		b.out = append(b.out, `}]`...)
	}
	b.out = append(b.out, ']')
}

// appendContent appends the content in canonical form, strict in every room version: we never make what is only
// tolerated. From room version 11 on the target of a redaction is put into it, before that it is taken out.
func (b *builder) appendContent() error {
	b.content = len(b.out)
	content := []byte(b.d.Content)
	if len(content) == 0 {
		content = []byte("{}")
	}
	var err error
	if b.out, err = canonicaljson.Append(b.out, content, true); err != nil {
		return canonicaljson.AsMatrix(err)
	}
	if b.out[b.content] != '{' {
		return matrix.BadJSON("The content of an event must be a JSON object.")
	}
	if b.d.Type == "m.room.redaction" {
		own, target := canonicaljson.Cut(bytes.Clone(b.out[b.content:]), "redacts")
		if b.d.Redacts == "" {
			s, _ := canonicaljson.String(target)
			b.d.Redacts, _ = matrix.ParseEventID(s)
		}
		b.out = b.out[:b.content]
		if b.v.RedactsInContent && b.d.Redacts != "" {
			target := canonicaljson.AppendString(nil, string(b.d.Redacts))
			b.out = canonicaljson.AppendInserted(b.out, own, canonicaljson.Place(own, "redacts"), "redacts", target)
		} else {
			b.out = append(b.out, own...)
		}
	}
	b.contentEnd = len(b.out)
	return nil
}

// referenceHash hashes the redacted event: every top-level member of a draft survives but redacts.
func (b *builder) referenceHash() [sha256.Size]byte {
	var room [1536]byte
	r := append(room[:0], b.out[:b.content]...)
	r = appendRedactedContent(r, b.v, b.d.Type, b.out[b.content:b.contentEnd])
	r = append(r, b.out[b.contentEnd:b.redacts]...)
	return sha256.Sum256(append(r, b.out[b.redactsEnd:]...))
}

func appendInt(dst []byte, n int64) []byte { return strconv.AppendInt(dst, n, 10) }
