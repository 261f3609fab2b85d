package auth

import (
	"strings"

	"hansa/matrix"
	"hansa/matrix/event"
)

// Check judges an event against the state that r and in describe: nil or *Denied. The rules about auth_events are
// CheckAuthEvents.
//
// spec: server-server-api#authorisation-rules
func (r *Rules) Check(ev *event.Event, in Facts) error {
	if d := r.check(ev, in); d != nil {
		return d
	}
	return nil
}

func (r *Rules) check(ev *event.Event, in Facts) *Denied {
	if ev.Type == TypeCreate {
		return r.checkCreateAgain(ev)
	}
	if d := r.checkRoom(ev); d != nil {
		return d
	}
	if !r.federate && ev.Sender.Server() != r.server {
		return deny("federate", "The room is closed to other servers.")
	}
	switch {
	case ev.Type == TypeMember:
		return r.checkMember(ev, in)
	case ev.Type == TypeAliases && r.version.AliasesAuth:
		return checkAliases(ev)
	}
	if in.Membership(ev.Sender) != Join {
		return deny("sender.not_joined", "%s is not a member of the room.", ev.Sender)
	}
	level := r.UserLevel(ev.Sender)
	if ev.Type == TypeThirdPartyInvite {
		if level < r.levels.Invite() {
			return deny("third_party_invite.level", "%s has level %d, inviting takes %d.", ev.Sender, level, r.levels.Invite())
		}
		return nil
	}
	if required := r.levels.Required(ev.Type, ev.IsState()); level < required {
		return deny("level.required", "%s has level %d, %.80q takes %d.", ev.Sender, level, ev.Type, required)
	}
	if ev.StateKey != nil && strings.HasPrefix(*ev.StateKey, "@") && *ev.StateKey != string(ev.Sender) {
		return deny("state_key.owner", "State with a user ID as its key can be set by that user only.")
	}
	switch {
	case ev.Type == TypePowerLevels:
		return r.checkPowerLevels(ev, level)
	case ev.Type == TypeRedaction && r.version.RedactionInAuth:
		return r.checkRedaction(ev, level)
	}
	return nil
}

// checkCreateAgain lets the room's own create event through and no other one: a second create event with the same room ID
// would be a second room.
func (r *Rules) checkCreateAgain(ev *event.Event) *Denied {
	if ev.ID != r.create.ID {
		return deny("create.second", "The room has a create event already.")
	}
	if err := CheckCreate(ev); err != nil {
		d, _ := err.(*Denied)
		return d
	}
	return nil
}

// checkRoom compares the room of the event with the room of the create event; from room version 12 on the room ID is
// the ID of the create event.
func (r *Rules) checkRoom(ev *event.Event) *Denied {
	room := r.create.RoomID
	if r.version.RoomIDHash {
		if len(ev.RoomID) < 2 || len(ev.RoomID) != len(r.create.ID) || string(ev.RoomID[1:]) != string(r.create.ID[1:]) {
			return deny("room", "The room ID does not name the create event.")
		}
	} else if ev.RoomID != room {
		return deny("room", "The event belongs to another room.")
	}
	return nil
}

// spec: rooms/v1#authorisation-rules
func checkAliases(ev *event.Event) *Denied {
	if ev.StateKey == nil {
		return deny("aliases.state_key", "m.room.aliases must be state.")
	}
	if *ev.StateKey != string(ev.Sender.Server()) {
		return deny("aliases.server", "A server can set its own aliases only.")
	}
	return nil
}

// spec: rooms/v1#authorisation-rules
func (r *Rules) checkRedaction(ev *event.Event, level Level) *Denied {
	if level >= r.levels.Redact() || sameServer(ev.ID, ev.Redacts) {
		return nil
	}
	return deny("redaction.level", "%s has level %d, redacting takes %d.", ev.Sender, level, r.levels.Redact())
}

func sameServer(a, b matrix.EventID) bool {
	return a.Server() != "" && a.Server() == b.Server()
}

// CanApplyRedaction tells whether a redaction that passed Check takes effect on its target. r are the rules of the state
// before the redaction. It is false where the redaction names another event, another room or itself.
//
// spec: rooms/v3#handling-redactions
func CanApplyRedaction(r *Rules, redaction, target *event.Event) bool {
	if redaction.Type != TypeRedaction || redaction.Redacts != target.ID || redaction.ID == target.ID ||
		redaction.RoomID != target.RoomID {
		return false
	}
	if r.CanRedact(redaction.Sender) {
		return true
	}
	if r.version.RedactionInAuth {
		return sameServer(redaction.ID, target.ID)
	}
	return redaction.Sender.Server() == target.Sender.Server()
}
