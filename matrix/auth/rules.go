package auth

import (
	"errors"
	"fmt"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/event"
)

// ErrCreate is wrapped by NewRules where the create event cannot be the root of a room.
var ErrCreate = errors.New("auth: unusable create event")

// Rules is everything that the create event, the power levels and the join rules say, read once. It never changes.
type Rules struct {
	version *matrix.RoomVersion
	create  *event.Event
	// creator is the user of rule member.join for the first join, who has level 100 without power levels (1 to 11).
	creator  matrix.UserID
	creators []matrix.UserID
	server   matrix.ServerName
	federate bool
	levels   *PowerLevels
	// explicit is true where there is a power levels event.
	explicit bool
	joinRule string
}

// NewRules reads the three events that nearly every check needs. powerLevels and joinRules may be nil. The error is
// ErrCreate or ErrPowerLevels: such a state cannot authorise anything.
func NewRules(create, powerLevels, joinRules *event.Event) (*Rules, error) {
	if create == nil || !create.Is(TypeCreate, "") || create.Version == nil {
		return nil, fmt.Errorf("%w: not an m.room.create", ErrCreate)
	}
	r := &Rules{
		version: create.Version, create: create, creator: create.Sender,
		server: create.Sender.Server(), federate: true, joinRule: JoinRuleInvite,
	}
	if r.version.CreatorField {
		r.creator = matrix.UserID(textMember(create.Content, "creator"))
	}
	if f, ok := canonicaljson.Find(create.Content, "m.federate"); ok && string(f) == "false" {
		r.federate = false
	}
	r.creators = []matrix.UserID{create.Sender}
	if r.version.PrivilegedCreators {
		more, err := additionalCreators(create.Content)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCreate, err)
		}
		r.creators = append(r.creators, more...)
	}
	r.levels = defaultPowerLevels()
	if powerLevels != nil {
		p, err := ParsePowerLevels(r.version, powerLevels.Content)
		if err != nil {
			return nil, err
		}
		r.levels, r.explicit = p, true
	}
	if joinRules != nil {
		if v, ok := canonicaljson.Find(joinRules.Content, "join_rule"); ok {
			r.joinRule, _ = canonicaljson.String(v)
		}
	}
	return r, nil
}

// Version is the version of the room.
func (r *Rules) Version() *matrix.RoomVersion { return r.version }

// Create is the create event.
func (r *Rules) Create() *event.Event { return r.create }

// Creators are the users who made the room: the sender of the create event and, from room version 12 on, the additional
// creators. The slice must not be changed.
func (r *Rules) Creators() []matrix.UserID { return r.creators }

// IsCreator tells whether a user is one of Creators.
func (r *Rules) IsCreator(user matrix.UserID) bool {
	for _, c := range r.creators {
		if c == user {
			return true
		}
	}
	return false
}

// Federates is false where the create event closes the room to other servers.
func (r *Rules) Federates() bool { return r.federate }

// JoinRule is the join rule in force; invite where nothing is set, empty where it is not a string.
func (r *Rules) JoinRule() string { return r.joinRule }

// PowerLevels are the levels in force; where the room has no power levels event they are the defaults, without the
// level of creators.
func (r *Rules) PowerLevels() *PowerLevels { return r.levels }

// HasPowerLevels tells whether the room has a power levels event.
func (r *Rules) HasPowerLevels() bool { return r.explicit }

// UserLevel is the power level of a user: Infinite for a creator from room version 12 on, 100 for the creator of an
// earlier room without power levels event, else what the power levels say.
func (r *Rules) UserLevel(user matrix.UserID) Level {
	if r.version.PrivilegedCreators {
		if r.IsCreator(user) {
			return Infinite
		}
	} else if !r.explicit && user == r.creator {
		return 100
	}
	return r.levels.User(user)
}

// CanSend tells whether the level of a user is enough for an event type. Membership is not considered.
func (r *Rules) CanSend(user matrix.UserID, typ string, state bool) bool {
	if typ == TypeThirdPartyInvite {
		return r.CanInvite(user)
	}
	return r.UserLevel(user) >= r.levels.Required(typ, state)
}

// CanInvite tells whether the level of a user is enough to invite.
func (r *Rules) CanInvite(user matrix.UserID) bool { return r.UserLevel(user) >= r.levels.Invite() }

// CanKick tells whether the level of a user is enough to kick another one.
func (r *Rules) CanKick(user, target matrix.UserID) bool {
	l := r.UserLevel(user)
	return l >= r.levels.Kick() && r.UserLevel(target) < l
}

// CanBan tells whether the level of a user is enough to ban another one.
func (r *Rules) CanBan(user, target matrix.UserID) bool {
	l := r.UserLevel(user)
	return l >= r.levels.Ban() && r.UserLevel(target) < l
}

// CanRedact tells whether the level of a user is enough to redact what users of other servers sent.
func (r *Rules) CanRedact(user matrix.UserID) bool { return r.UserLevel(user) >= r.levels.Redact() }

// CanNotify tells whether the level of a user is enough for a kind of notification, such as room.
func (r *Rules) CanNotify(user matrix.UserID, kind string) bool {
	return r.UserLevel(user) >= r.levels.Notification(kind)
}
