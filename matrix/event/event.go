// Package event reads, builds, hashes and redacts PDUs of every room version.
//
// Bytes from outside are parsed once, by Parse, into an Event that never changes again; policy, authorisation, hash and
// store all read that one value. Drafts of our own users become events by Build, which appends canonical JSON by hand.
// The package knows nothing of keys beyond the shape of signatures (package signing makes and verifies them), nothing
// of state (package auth), and nothing of storage.
//
// spec: rooms/v12
// spec: server-server-api#pdus
package event

import (
	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
)

// MaxSize is the largest event in bytes: canonical JSON in the form of the federation API, signatures included.
//
// spec: client-server-api#size-limits
const MaxSize = 65536

// StateKey names one entry of room state.
type StateKey struct{ Type, Key string }

// Event is one PDU. It is immutable: fields and the bytes behind them are shared freely between goroutines.
type Event struct {
	Version *matrix.RoomVersion
	ID      matrix.EventID
	// RoomID is the room, for the create event of room version 12 derived from its hash.
	RoomID matrix.RoomID
	Type   string
	// StateKey is nil for an event that is no state.
	StateKey *string
	Sender   matrix.UserID
	// Content is the object as it stands in JSON.
	Content jsontext.Value
	// PrevEvents and AuthEvents are the parents in the graph and the events that authorise this one.
	PrevEvents, AuthEvents []matrix.EventID
	Depth                  int64
	// OriginServerTS is the sender's clock in ms since 1970.
	OriginServerTS int64
	// Redacts is the target of an m.room.redaction, from wherever the room version keeps it, else empty.
	Redacts matrix.EventID
	// JSON is the canonical JSON of the event without unsigned and signatures: the bytes that are hashed and, once
	// redacted, signed. An event whose content hash did not match holds its redacted form here.
	JSON []byte
	// Signatures is the signatures object as received, nil for an event of ours that is not signed yet.
	Signatures jsontext.Value
	// HashMismatch is true where the content hash did not match and the event was redacted on arrival.
	HashMismatch bool

	// signaturesAt is where the signatures belong in JSON; 0 means that nobody has looked yet.
	signaturesAt int
	// stateKey is what StateKey points to, so that it needs no memory of its own.
	stateKey string
}

// IsState tells whether the event carries a state key.
func (e *Event) IsState() bool { return e.StateKey != nil }

// Is tells whether the event is state of this type and key.
func (e *Event) Is(typ, key string) bool {
	return e.StateKey != nil && e.Type == typ && *e.StateKey == key
}

// Key is the entry of room state that a state event sets; only valid where IsState.
func (e *Event) Key() StateKey { return StateKey{e.Type, *e.StateKey} }
