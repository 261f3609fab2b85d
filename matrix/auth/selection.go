package auth

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/event"
)

// ErrMissing is wrapped by CheckAuthEvents where the caller did not bring every auth event.
var ErrMissing = errors.New("auth: auth events missing")

// Needed is the selection of auth events: the entries of room state that authorise an event of this type, as far as
// the room has them. It is the same for building an event and for judging the auth_events of a received one. Content must be canonical.
//
// spec: server-server-api#auth-events-selection
func Needed(v *matrix.RoomVersion, typ string, stateKey *string, sender matrix.UserID, content jsontext.Value) []event.StateKey {
	if typ == TypeCreate {
		return nil
	}
	keys := make([]event.StateKey, 0, 6)
	if v.CreateInAuthEvents {
		keys = append(keys, event.StateKey{Type: TypeCreate})
	}
	keys = append(keys, event.StateKey{Type: TypePowerLevels}, event.StateKey{Type: TypeMember, Key: string(sender)})
	if typ != TypeMember || stateKey == nil {
		return keys
	}
	if *stateKey != string(sender) {
		keys = append(keys, event.StateKey{Type: TypeMember, Key: *stateKey})
	}
	switch membership := textMember(content, "membership"); membership {
	case Join, Invite, Knock:
		keys = append(keys, event.StateKey{Type: TypeJoinRules})
		if membership == Invite {
			keys = appendThirdParty(keys, content)
		}
		if membership == Join && v.Restricted {
			user := textMember(content, authoriser)
			if user != "" && user != *stateKey && user != string(sender) {
				keys = append(keys, event.StateKey{Type: TypeMember, Key: user})
			}
		}
	}
	return keys
}

// NeededFor is Needed for a finished event.
func NeededFor(ev *event.Event) []event.StateKey {
	return Needed(ev.Version, ev.Type, ev.StateKey, ev.Sender, ev.Content)
}

func appendThirdParty(keys []event.StateKey, content jsontext.Value) []event.StateKey {
	invite, ok := canonicaljson.Find(content, "third_party_invite")
	if !ok || !isObject(invite) {
		return keys
	}
	signed, ok := canonicaljson.Find(invite, "signed")
	if !ok || !isObject(signed) {
		return keys
	}
	if token, ok := canonicaljson.Find(signed, "token"); ok {
		if s, isText := canonicaljson.String(token); isText {
			keys = append(keys, event.StateKey{Type: TypeThirdPartyInvite, Key: s})
		}
	}
	return keys
}

// CheckAuthEvents is the rule about the auth_events of an event: no two of one kind, none that the selection does not
// name, none that was rejected, none of another room, and the create event among them where the room version wants it.
// authEvents are the events that ev.AuthEvents names, in any order. The answer is nil, *Denied, or ErrMissing where the
// caller must find more events first.
//
// spec: rooms/v1#authorisation-rules
// spec: rooms/v12#authorisation-rules
func CheckAuthEvents(ev *event.Event, authEvents []*event.Event, rejected func(matrix.EventID) bool) error {
	if ev.Type == TypeCreate {
		return nil
	}
	if create := event.CreateEventID(ev.Version, ev.RoomID); create != "" && rejected(create) {
		return deny("room", "The create event of the room was rejected.")
	}
	known := make(map[matrix.EventID]*event.Event, len(authEvents))
	for _, a := range authEvents {
		known[a.ID] = a
	}
	needed := NeededFor(ev)
	seen := make([]bool, len(needed))
	for i, id := range ev.AuthEvents {
		for _, earlier := range ev.AuthEvents[:i] {
			if earlier == id {
				return deny("auth_events.duplicate", "%s stands twice among the auth events.", id)
			}
		}
		a := known[id]
		if a == nil {
			return fmt.Errorf("%w: %s", ErrMissing, id)
		}
		if d := checkAuthEvent(ev, a, needed, seen); d != nil {
			return d
		}
		if rejected(id) {
			return deny("auth_events.rejected", "The auth event %s was rejected.", id)
		}
	}
	if ev.Version.CreateInAuthEvents && !seen[0] {
		return deny("auth_events.create", "The create event is not among the auth events.")
	}
	return nil
}

func checkAuthEvent(ev, a *event.Event, needed []event.StateKey, seen []bool) *Denied {
	if a.RoomID != ev.RoomID {
		return deny("auth_events.room", "The auth event %s belongs to another room.", a.ID)
	}
	for i, k := range needed {
		if !a.Is(k.Type, k.Key) {
			continue
		}
		if seen[i] {
			return deny("auth_events.duplicate", "Two auth events are %s of %.80q.", k.Type, k.Key)
		}
		seen[i] = true
		return nil
	}
	return deny("auth_events.selection", "The auth event %s, of type %.80s, has no say about this event.", a.ID, a.Type)
}
