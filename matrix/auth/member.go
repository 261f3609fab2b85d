package auth

import (
	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/event"
)

// authoriser is the member of a join's content that names who lets the user in by a restricted join rule.
const authoriser = "join_authorised_via_users_server"

// checkMember is the rule for m.room.member.
//
// spec: rooms/v1#authorisation-rules
// spec: rooms/v7#authorisation-rules
// spec: rooms/v8#authorisation-rules
// spec: rooms/v10#authorisation-rules
// spec: rooms/v12#authorisation-rules
func (r *Rules) checkMember(ev *event.Event, in Facts) *Denied {
	if ev.StateKey == nil {
		return deny("member.state_key", "A membership must be state.")
	}
	if _, ok := canonicaljson.Find(ev.Content, "membership"); !ok {
		return deny("member.membership", "The event names no membership.")
	}
	if r.version.Restricted {
		if d := checkAuthoriserSignature(ev, in); d != nil {
			return d
		}
	}
	target := matrix.UserID(*ev.StateKey)
	// differs: the text looks at the sender only; all deployed servers also keep members of other servers out of a closed
	// room, whoever acts.
	if !r.federate && target.Server() != r.server {
		return deny("federate", "The room is closed to other servers, and %.80s is on one.", target)
	}
	switch event.Membership(ev) {
	case Join:
		return r.checkJoin(ev, target, in)
	case Invite:
		return r.checkInvite(ev, target, in)
	case Leave:
		return r.checkLeave(ev, target, in)
	case Ban:
		return r.checkBan(ev, target, in)
	case Knock:
		if r.version.Knock {
			return r.checkKnock(ev, target, in)
		}
	}
	return deny("member.unknown", "The membership is not known in room version %s.", r.version.ID)
}

// checkAuthoriserSignature asks for the signature of the server that let the user in, whatever the membership is.
//
// spec: rooms/v8#authorisation-rules
func checkAuthoriserSignature(ev *event.Event, in Facts) *Denied {
	raw, ok := canonicaljson.Find(ev.Content, authoriser)
	if !ok {
		return nil
	}
	user, isText := canonicaljson.String(raw)
	if !isText || !isUserID(user) || matrix.UserID(user).Server() == "" {
		return deny("member.authoriser", "The authorising user is not a user ID.")
	}
	if server := matrix.UserID(user).Server(); !in.SignedBy(server) {
		return deny("member.authoriser_signature", "The server %s of the authorising user has not signed.", server)
	}
	return nil
}

func (r *Rules) checkJoin(ev *event.Event, target matrix.UserID, in Facts) *Denied {
	if len(ev.PrevEvents) == 1 && ev.PrevEvents[0] == r.create.ID && target == r.creator {
		return nil
	}
	if ev.Sender != target {
		return deny("member.join.sender", "Nobody can join for somebody else.")
	}
	current := in.Membership(target)
	if current == Ban {
		return deny("member.join.banned", "%s is banned from the room.", target)
	}
	inside := current == Join || current == Invite
	switch rule := r.joinRule; {
	case rule == JoinRulePublic:
		return nil
	case rule == JoinRuleInvite, rule == JoinRuleKnock && r.version.Knock:
		if inside {
			return nil
		}
		return deny("member.join.invite", "%s is not invited.", target)
	case rule == JoinRuleRestricted && r.version.Restricted, rule == JoinRuleKnockRestricted && r.version.KnockRestricted:
		if inside {
			return nil
		}
		return r.checkAuthoriser(ev, in)
	default:
		return deny("member.join.rule", "The join rule %.32q lets nobody join.", rule)
	}
}

func (r *Rules) checkAuthoriser(ev *event.Event, in Facts) *Denied {
	user := matrix.UserID(textMember(ev.Content, authoriser))
	if user == "" {
		return deny("member.join.restricted", "The join names no authorising user.")
	}
	if in.Membership(user) != Join {
		return deny("member.join.authoriser", "The authorising user %s is not a member of the room.", user)
	}
	if !r.CanInvite(user) {
		return deny("member.join.authoriser_level", "The authorising user %s may not invite.", user)
	}
	return nil
}

func (r *Rules) checkInvite(ev *event.Event, target matrix.UserID, in Facts) *Denied {
	if raw, ok := canonicaljson.Find(ev.Content, "third_party_invite"); ok {
		return checkThirdParty(ev, raw, in)
	}
	if in.Membership(ev.Sender) != Join {
		return deny("member.invite.sender", "%s is not a member of the room.", ev.Sender)
	}
	if m := in.Membership(target); m == Join || m == Ban {
		return deny("member.invite.target", "%s has the membership %s and cannot be invited.", target, m)
	}
	if !r.CanInvite(ev.Sender) {
		return deny("member.invite.level", "%s has level %d, inviting takes %d.",
			ev.Sender, r.UserLevel(ev.Sender), r.levels.Invite())
	}
	return nil
}

func (r *Rules) checkLeave(ev *event.Event, target matrix.UserID, in Facts) *Denied {
	current := in.Membership(ev.Sender)
	if ev.Sender == target {
		if current == Invite || current == Join || current == Knock && r.version.Knock {
			return nil
		}
		return deny("member.leave.self", "%s is not in the room and cannot leave it.", target)
	}
	if current != Join {
		return deny("member.leave.sender", "%s is not a member of the room.", ev.Sender)
	}
	level := r.UserLevel(ev.Sender)
	if in.Membership(target) == Ban && level < r.levels.Ban() {
		return deny("member.leave.unban", "%s has level %d, lifting a ban takes %d.", ev.Sender, level, r.levels.Ban())
	}
	if !r.CanKick(ev.Sender, target) {
		return deny("member.leave.level", "%s has level %d: kicking takes %d and more than the level of %s.",
			ev.Sender, level, r.levels.Kick(), target)
	}
	return nil
}

func (r *Rules) checkBan(ev *event.Event, target matrix.UserID, in Facts) *Denied {
	if in.Membership(ev.Sender) != Join {
		return deny("member.ban.sender", "%s is not a member of the room.", ev.Sender)
	}
	if !r.CanBan(ev.Sender, target) {
		return deny("member.ban.level", "%s has level %d: banning takes %d and more than the level of %s.",
			ev.Sender, r.UserLevel(ev.Sender), r.levels.Ban(), target)
	}
	return nil
}

// spec: rooms/v7#authorisation-rules
func (r *Rules) checkKnock(ev *event.Event, target matrix.UserID, in Facts) *Denied {
	if r.joinRule != JoinRuleKnock && !(r.joinRule == JoinRuleKnockRestricted && r.version.KnockRestricted) {
		return deny("member.knock.rule", "The join rule %.32q does not allow knocking.", r.joinRule)
	}
	if ev.Sender != target {
		return deny("member.knock.sender", "Nobody can knock for somebody else.")
	}
	switch current := in.Membership(target); current {
	case Ban, Invite, Join:
		return deny("member.knock.membership", "%s has the membership %s and cannot knock.", target, current)
	}
	return nil
}
