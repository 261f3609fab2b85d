package storage

import (
	"hansa/matrix"
	"hansa/matrix/event"
	"hansa/storage/statemap"
)

// Kind tells what an entry of the log is about.
type Kind uint8

// The kinds of log entries.
const (
	KindEvent       Kind = iota + 1 // an event was appended to a room
	KindReceipt                     // a receipt moved
	KindAccountData                 // account data of a user changed
	KindToDevice                    // a to-device message waits for a device
	KindDeviceList                  // a user's devices or keys changed
	KindNotice                      // a fact that caches and followers follow changed: Name says which
)

// Names of notices.
const (
	NoticeSession   = "session"   // Ref: user ID whose sessions changed (revoked, locked)
	NoticeParty     = "party"     // Ref: user ID whose groups, pools, roles or attributes changed
	NoticeProfile   = "profile"   // Ref: user ID whose profile changed
	NoticeAgreement = "agreement" // Ref: tenant whose agreements changed
	NoticeDirectory = "directory" // Ref: room ID whose aliases or publication changed
	NoticeTenant    = "tenant"    // Ref: tenant whose settings changed
	NoticeRedaction = "redaction" // Ref: ID of an event that was redacted after the fact
	NoticeState     = "state"     // Ref: room ID whose current state changed by more than the event before
	NoticeMended    = "mended"    // Ref: room ID whose current state was not what its events make it, and was set right
	NoticePolicy    = "policy"    // Ref: revision of the rules; these, their data or an agreement changed on a node
	NoticeWithheld  = "withheld"  // Ref: room ID of an event that policy released
	NoticeBridge    = "bridge"    // Ref: ID of an application service that was suspended or resumed
)

// Entry is one position of the log. Which fields are set depends on Kind.
type Entry struct {
	Pos      int64
	Kind     Kind
	Event    *Event          // KindEvent
	RoomID   matrix.RoomID   // KindEvent, KindReceipt; KindAccountData of a room
	UserID   matrix.UserID   // all but KindEvent and KindNotice
	DeviceID matrix.DeviceID // KindToDevice
	Receipt  *Receipt        // KindReceipt
	Data     *AccountData    // KindAccountData
	Message  *ToDevice       // KindToDevice
	Name     string          // KindNotice
	Ref      string          // KindNotice
}

// Flags mark events that not everybody may see or build on.
type Flags int64

// The flags of a stored event.
const (
	// Rejected events failed the authorisation rules against their own auth events or the state before them.
	Rejected Flags = 1 << iota
	// SoftFailed events failed them against the current state.
	SoftFailed
	// Withheld events were refused by policy: part of the graph, shown to nobody.
	Withheld
	// Outlier events are known only as auth events or state; they have no place in the timeline.
	Outlier
	// Backfilled events are history that was fetched later: from before this server was in the room, or from a hole. They are no news.
	Backfilled
	// Relayed events came by send_join, send_leave or send_knock: those of another server are sent on to the others in the room by this one,
	// which let them in; those of our users by the server that they were handed in at.
	Relayed
	// Gapped events follow others that were not known when they came: between them and what the room had before there is a hole in its history.
	Gapped
)

// Hidden tells whether clients never see the event in a timeline.
func (f Flags) Hidden() bool { return f&(Rejected|SoftFailed|Withheld|Outlier) != 0 }

// Event is an event as it is stored.
type Event struct {
	*event.Event
	Pos   int64
	Flags Flags
	// AuthRank is the rank of a state event in the auth graph: greater than that of each of its auth events.
	AuthRank int64
	// StateRoot is the room state after the event; zero for outliers.
	StateRoot statemap.Hash
	// Replaces is the state event of the same key before this one, empty when there was none or this is no state.
	Replaces matrix.EventID
	// RedactedBy is the redaction that took the content away, else empty.
	RedactedBy matrix.EventID
	// DeviceID and TxnID tell which device of the sender sent it under which transaction ID, where known.
	DeviceID matrix.DeviceID
	TxnID    string
	// DecisionID is the policy decision that let the event in (or withheld it).
	DecisionID string
	// ReceivedTS is when it was stored, in ms since 1970.
	ReceivedTS int64
}

// Receipt is the newest receipt of one user, type and thread in a room.
type Receipt struct {
	RoomID   matrix.RoomID
	UserID   matrix.UserID
	Type     string // m.read, m.read.private
	ThreadID string // "" unthreaded, else "main" or the thread's root
	EventID  matrix.EventID
	EventPos int64 // position of that event
	TS       int64 // ms since 1970
	Pos      int64
}

// AccountData is one account datum; RoomID is empty for a global one. Content `{}` stands for a deleted datum.
type AccountData struct {
	UserID  matrix.UserID
	RoomID  matrix.RoomID
	Type    string
	Content []byte
	Pos     int64
}

// ToDevice is one message that waits for one device.
type ToDevice struct {
	UserID   matrix.UserID
	DeviceID matrix.DeviceID
	Sender   matrix.UserID
	Type     string
	Content  []byte
	Pos      int64
}
