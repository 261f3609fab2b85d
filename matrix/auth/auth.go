// Package auth holds the authorisation rules of room versions 1 to 12: whether an event may stand, given the state of its
// room. It answers nil or *Denied and never looks anything up itself: the caller brings the create event, the power
// levels and the join rules once, as Rules, and the memberships that one check asks for, as Facts.
//
// The checks on receipt of an event use it like this: CheckAuthEvents (which auth events may be cited), then Check
// against the state that the auth events make, then against the state before the event, then against the current
// state. State resolution (package stateres) uses the same Rules. Rules never change once made and may be shared by
// goroutines; a room that is hot makes them again only when its power levels or join rules change.
//
// Where the versions differ, the flags of matrix.RoomVersion decide; there is one text of each rule. Signatures of the
// sender are not looked at (package signing), nor is policy: a denial by policy is no auth rule.
//
// spec: server-server-api#authorisation-rules
// spec: rooms/v1#authorisation-rules
// spec: rooms/v12#authorisation-rules
package auth

import (
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/event"
)

// The event types that the rules know.
const (
	TypeCreate           = "m.room.create"
	TypeMember           = "m.room.member"
	TypePowerLevels      = "m.room.power_levels"
	TypeJoinRules        = "m.room.join_rules"
	TypeThirdPartyInvite = "m.room.third_party_invite"
	TypeAliases          = "m.room.aliases"
	TypeRedaction        = "m.room.redaction"
)

// The memberships of a user in a room; the empty string is no membership.
const (
	Join   = "join"
	Invite = "invite"
	Leave  = "leave"
	Ban    = "ban"
	Knock  = "knock"
)

// The join rules that the versions know.
const (
	JoinRulePublic          = "public"
	JoinRuleInvite          = "invite"
	JoinRuleKnock           = "knock"
	JoinRuleRestricted      = "restricted"
	JoinRuleKnockRestricted = "knock_restricted"
)

// Denied is the answer when an event is not allowed. Everything else that this package returns as an error is a mistake
// of the caller, not of the event.
type Denied struct {
	// Rule names the rule in words that stay the same in all versions, such as member.join.banned.
	Rule string
	// Reason is a sentence for people.
	Reason string
}

// Error implements the error interface.
func (d *Denied) Error() string { return "auth: " + d.Rule + ": " + d.Reason }

func deny(rule, format string, args ...any) *Denied {
	return &Denied{Rule: rule, Reason: fmt.Sprintf(format, args...)}
}

// Facts is the part of a room's state that a check asks for beyond Rules. A room answers from its table of memberships,
// state resolution from the state it is building; hence an interface.
type Facts interface {
	// Membership is the current membership of a user, empty where there is no member event or it has none.
	Membership(user matrix.UserID) string
	// ThirdPartyInvite is the m.room.third_party_invite with this state key, or nil.
	ThirdPartyInvite(token string) *event.Event
	// SignedBy tells whether the event under check carries a valid signature of this server. It is asked only for the
	// server of join_authorised_via_users_server.
	SignedBy(server matrix.ServerName) bool
}

// State looks up one entry of room state; nil where there is none.
type State func(typ, key string) *event.Event

type stateFacts struct {
	state    State
	signedBy func(matrix.ServerName) bool
}

func (f stateFacts) Membership(user matrix.UserID) string {
	return Membership(f.state(TypeMember, string(user)))
}

func (f stateFacts) ThirdPartyInvite(token string) *event.Event {
	return f.state(TypeThirdPartyInvite, token)
}

func (f stateFacts) SignedBy(server matrix.ServerName) bool {
	return f.signedBy != nil && f.signedBy(server)
}

// FactsOf answers Facts from a look-up of state. A nil signedBy means that no other server has signed.
func FactsOf(state State, signedBy func(matrix.ServerName) bool) Facts {
	return stateFacts{state, signedBy}
}

// Check judges an event against a state. It makes Rules each time: callers with many events for one state make them once.
func Check(ev *event.Event, state State, signedBy func(matrix.ServerName) bool) error {
	create := state(TypeCreate, "")
	if ev.Type == TypeCreate && create == nil {
		return CheckCreate(ev)
	}
	if create == nil {
		return deny("create.missing", "The room has no create event.")
	}
	r, err := NewRules(create, state(TypePowerLevels, ""), state(TypeJoinRules, ""))
	if err != nil {
		return deny("state.malformed", "The state of the room cannot be read: %v", err)
	}
	return r.Check(ev, FactsOf(state, signedBy))
}

// Membership is content.membership of a member event, without an allocation for the common values. It is empty for nil,
// for another type of event and where the value is not a string.
func Membership(ev *event.Event) string {
	if ev == nil || ev.Type != TypeMember {
		return ""
	}
	return event.Membership(ev)
}

// textMember returns a top-level member that is a string, empty where it is missing or of another kind.
func textMember(object jsontext.Value, name string) string {
	v, ok := canonicaljson.Find(object, name)
	if !ok {
		return ""
	}
	s, _ := canonicaljson.String(v)
	return s
}
