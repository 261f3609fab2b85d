package matrix

// EventFormat names the shape of a PDU on the wire.
type EventFormat uint8

// The event formats, named after the first room version that has them.
const (
	EventFormatV1  EventFormat = 1  // event_id field, references are [id, hashes] pairs
	EventFormatV3  EventFormat = 3  // plain references, IDs in standard base64
	EventFormatV4  EventFormat = 4  // IDs in URL-safe base64
	EventFormatV6  EventFormat = 6  // depth limited to 2^53-1
	EventFormatV11 EventFormat = 11 // redacts inside content
	EventFormatV12 EventFormat = 12 // no room_id on m.room.create
)

// StateResAlgorithm names an algorithm of state resolution.
type StateResAlgorithm uint8

// The state resolution algorithms.
const (
	StateResV1  StateResAlgorithm = 1
	StateResV2  StateResAlgorithm = 2
	StateResV21 StateResAlgorithm = 21
)

// RedactionAlgorithm names the list of keys that survive a redaction, after the first room version that has it.
type RedactionAlgorithm uint8

// The redaction algorithms.
const (
	RedactionV1  RedactionAlgorithm = 1
	RedactionV6  RedactionAlgorithm = 6
	RedactionV8  RedactionAlgorithm = 8
	RedactionV9  RedactionAlgorithm = 9
	RedactionV11 RedactionAlgorithm = 11
)

// RoomVersion is everything in which the room versions differ; there is one value per version and no behaviour behind it.
//
// spec: rooms/v12
type RoomVersion struct {
	ID          string
	EventFormat EventFormat
	StateRes    StateResAlgorithm
	Redaction   RedactionAlgorithm
	// MaxDepth is the ceiling of an event's depth.
	MaxDepth int64
	// EventIDHash is true where the event ID is the reference hash (3 and later).
	EventIDHash bool
	// RoomIDHash is true where the room ID is the hash of the create event (12).
	RoomIDHash bool
	// RedactionInAuth is true where the authorisation rules judge redactions (1 and 2).
	RedactionInAuth bool
	// RedactsInContent is true where m.room.redaction names its target in content (11 and later).
	RedactsInContent bool
	// EventIDSignature is true where the server in the event ID must sign too (1 and 2).
	EventIDSignature bool
	// EnforceKeyValidity is true where valid_until_ts of a signing key counts (5 and later).
	EnforceKeyValidity bool
	// StrictCanonicalJSON is true where numbers must be integers within ±(2^53-1) (6 and later).
	StrictCanonicalJSON bool
	// AliasesAuth is true where m.room.aliases has its own rule and redaction (1 to 5).
	AliasesAuth bool
	// NotificationsAuth is true where power_levels.notifications is judged (6 and later).
	NotificationsAuth bool
	// StringPowerLevels and FloatPowerLevels tell which lax numbers a power level may have; IntegerPowerLevels enforces
	// integers by an auth rule (10 and later).
	StringPowerLevels, FloatPowerLevels, IntegerPowerLevels bool
	// Knock, Restricted and KnockRestricted tell which join rules exist.
	Knock, Restricted, KnockRestricted bool
	// CreatorField is true where m.room.create names its creator in content (1 to 10).
	CreatorField bool
	// CreateInAuthEvents is true where auth_events must hold the create event (1 to 11).
	CreateInAuthEvents bool
	// PrivilegedCreators is true where creators have infinite power and additional_creators exist (12).
	PrivilegedCreators bool
}

// DefaultRoomVersion is the version of a room that does not ask for one.
const DefaultRoomVersion = "12"

// RoomVersions lists the identifiers of every supported room version in ascending order.
func RoomVersions() []string {
	return []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"}
}

// FindRoomVersion returns the flags of a room version, and whether it is supported.
func FindRoomVersion(id string) (*RoomVersion, bool) {
	n := 0
	for i, s := range RoomVersions() {
		if s == id {
			n = i + 1
		}
	}
	if n == 0 {
		return nil, false
	}
	v := &RoomVersion{
		ID: id, EventFormat: EventFormatV1, StateRes: StateResV1, Redaction: RedactionV1, MaxDepth: 1<<63 - 1,
		EventIDHash: n >= 3, RoomIDHash: n >= 12,
		RedactionInAuth: n <= 2, RedactsInContent: n >= 11, EventIDSignature: n <= 2,
		EnforceKeyValidity: n >= 5, StrictCanonicalJSON: n >= 6, AliasesAuth: n <= 5, NotificationsAuth: n >= 6,
		StringPowerLevels: n <= 9, FloatPowerLevels: n <= 5, IntegerPowerLevels: n >= 10,
		Knock: n >= 7, Restricted: n >= 8, KnockRestricted: n >= 10,
		CreatorField: n <= 10, CreateInAuthEvents: n <= 11, PrivilegedCreators: n >= 12,
	}
	switch {
	case n >= 12:
		v.EventFormat = EventFormatV12
	case n >= 11:
		v.EventFormat = EventFormatV11
	case n >= 6:
		v.EventFormat = EventFormatV6
	case n >= 4:
		v.EventFormat = EventFormatV4
	case n >= 3:
		v.EventFormat = EventFormatV3
	}
	switch {
	case n >= 12:
		v.StateRes = StateResV21
	case n >= 2:
		v.StateRes = StateResV2
	}
	switch {
	case n >= 11:
		v.Redaction = RedactionV11
	case n >= 9:
		v.Redaction = RedactionV9
	case n >= 8:
		v.Redaction = RedactionV8
	case n >= 6:
		v.Redaction = RedactionV6
	}
	if n >= 6 {
		v.MaxDepth = 1<<53 - 1
	}
	return v, true
}
