package auth

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"math"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
)

// Level is a power level. Levels outside the range of int64, which room versions before 6 could write as floats and
// versions before 10 as strings, are cut to the range.
type Level int64

// Infinite is the level of room creators from room version 12 on; no event can give it.
const Infinite Level = math.MaxInt64

const (
	maxLevel Level = math.MaxInt64 - 1
	minLevel Level = math.MinInt64 + 1
	// maxSafe is the largest integer of canonical JSON.
	maxSafe = 1<<53 - 1
)

// ErrPowerLevels is wrapped by every error of ParsePowerLevels.
var ErrPowerLevels = errors.New("auth: malformed power levels")

// The single levels, as indexes of PowerLevels.scalar.
const (
	scalarUsersDefault = iota
	scalarEventsDefault
	scalarStateDefault
	scalarBan
	scalarRedact
	scalarKick
	scalarInvite
	scalars
)

func scalarNames() [scalars]string {
	return [scalars]string{"users_default", "events_default", "state_default", "ban", "redact", "kick", "invite"}
}

// PowerLevels is a parsed m.room.power_levels. It knows nothing of creators: see Rules.UserLevel.
type PowerLevels struct {
	scalar        [scalars]Level
	present       [scalars]bool
	users         map[string]Level
	events        map[string]Level
	notifications map[string]Level
}

// defaultPowerLevels is what holds where no power levels event says otherwise.
//
// spec: client-server-api#mroompower_levels
func defaultPowerLevels() *PowerLevels {
	p := &PowerLevels{}
	p.scalar[scalarStateDefault] = 50
	p.scalar[scalarBan] = 50
	p.scalar[scalarRedact] = 50
	p.scalar[scalarKick] = 50
	return p
}

// ParsePowerLevels reads the content of an m.room.power_levels as the room version allows: integers; integers in strings
// up to version 9; floats, cut at the point, up to version 5.
//
// spec: rooms/v1#mroompower_levels-events-accept-values-as-strings
// spec: rooms/v1#mroompower_levels-events-accept-values-as-floats
// spec: rooms/v10#values-in-mroompower_levels-events-must-be-integers
func ParsePowerLevels(v *matrix.RoomVersion, content jsontext.Value) (*PowerLevels, error) {
	p := defaultPowerLevels()
	names := scalarNames()
	if !isObject(content) {
		return nil, fmt.Errorf("%w: the content is not an object", ErrPowerLevels)
	}
	for key, value := range canonicaljson.Members(content) {
		var err error
		switch string(key) {
		case "users":
			p.users, err = parseLevels(v, value, isUserID)
		case "events":
			p.events, err = parseLevels(v, value, nil)
		case "notifications":
			if p.notifications, err = parseLevels(v, value, nil); err != nil && !v.NotificationsAuth {
				p.notifications, err = nil, nil
			}
		default:
			for i, n := range names {
				if n == string(key) {
					p.scalar[i], err = parseLevel(v, value)
					p.present[i] = true
				}
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrPowerLevels, key, err)
		}
	}
	return p, nil
}

func parseLevels(v *matrix.RoomVersion, object jsontext.Value, valid func(string) bool) (map[string]Level, error) {
	if !isObject(object) {
		return nil, errors.New("not an object")
	}
	levels := make(map[string]Level)
	for key, value := range canonicaljson.Members(object) {
		name, ok := keyText(key)
		if !ok || valid != nil && !valid(name) {
			return nil, fmt.Errorf("%.80q is not a user ID", name)
		}
		l, err := parseLevel(v, value)
		if err != nil {
			return nil, fmt.Errorf("%.80q: %w", name, err)
		}
		levels[name] = l
	}
	return levels, nil
}

// keyText decodes the key of a member, which Members gives without its quotes.
func keyText(key []byte) (string, bool) {
	if bytes.IndexByte(key, '\\') < 0 {
		return string(key), true
	}
	return canonicaljson.String(append(append([]byte{'"'}, key...), '"'))
}

// isUserID is the check that the deployed servers apply to the keys of users: a sigil and a colon. A stricter one
// would split rooms whose power levels name users with historical identifiers.
func isUserID(s string) bool {
	return len(s) > 1 && s[0] == '@' && strings.IndexByte(s, ':') > 0
}

func parseLevel(v *matrix.RoomVersion, raw jsontext.Value) (Level, error) {
	switch raw.Kind() {
	case '0':
		if bytes.ContainsAny(raw, ".eE") {
			return parseFloatLevel(v, string(raw))
		}
		l, err := parseIntLevel(string(raw))
		if err == nil && v.StrictCanonicalJSON && (l > maxSafe || l < -maxSafe) {
			return 0, errors.New("number out of range")
		}
		return l, err
	case '"':
		if !v.StringPowerLevels {
			return 0, errors.New("a string is no power level in this room version")
		}
		s, ok := canonicaljson.String(raw)
		if !ok {
			return 0, errors.New("malformed string")
		}
		return parseIntLevel(strings.TrimSpace(s))
	default:
		return 0, errors.New("not a number")
	}
}

func parseIntLevel(s string) (Level, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, errors.New("not an integer")
	}
	return min(max(Level(n), minLevel), maxLevel), nil
}

func parseFloatLevel(v *matrix.RoomVersion, s string) (Level, error) {
	if !v.FloatPowerLevels {
		return 0, errors.New("a float is no power level in this room version")
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return 0, errors.New("float out of range")
	}
	switch f = math.Trunc(f); {
	case f >= math.MaxInt64:
		return maxLevel, nil
	case f <= math.MinInt64:
		return minLevel, nil
	}
	return Level(f), nil
}

// isObject tells whether a value, which is part of canonical JSON, is an object.
func isObject(v []byte) bool { return len(v) > 1 && v[0] == '{' }

// User is the level that the event gives a user, or users_default.
func (p *PowerLevels) User(id matrix.UserID) Level {
	if l, ok := p.users[string(id)]; ok {
		return l
	}
	return p.scalar[scalarUsersDefault]
}

// Required is the level that sending an event of this type takes, as state or as a message.
func (p *PowerLevels) Required(typ string, state bool) Level {
	if l, ok := p.events[typ]; ok {
		return l
	}
	if state {
		return p.scalar[scalarStateDefault]
	}
	return p.scalar[scalarEventsDefault]
}

// UsersDefault is the level of users who are not listed.
func (p *PowerLevels) UsersDefault() Level { return p.scalar[scalarUsersDefault] }

// EventsDefault is the level for message events that are not listed.
func (p *PowerLevels) EventsDefault() Level { return p.scalar[scalarEventsDefault] }

// StateDefault is the level for state events that are not listed.
func (p *PowerLevels) StateDefault() Level { return p.scalar[scalarStateDefault] }

// Invite is the level for inviting.
func (p *PowerLevels) Invite() Level { return p.scalar[scalarInvite] }

// Kick is the level for kicking.
func (p *PowerLevels) Kick() Level { return p.scalar[scalarKick] }

// Ban is the level for banning.
func (p *PowerLevels) Ban() Level { return p.scalar[scalarBan] }

// Redact is the level for redacting events of other servers' users.
func (p *PowerLevels) Redact() Level { return p.scalar[scalarRedact] }

// Notification is the level for a kind of notification, such as room for @room.
func (p *PowerLevels) Notification(kind string) Level {
	if l, ok := p.notifications[kind]; ok {
		return l
	}
	return 50
}

// Users goes through the users that the event lists, in no particular order.
func (p *PowerLevels) Users() iter.Seq2[matrix.UserID, Level] {
	return func(yield func(matrix.UserID, Level) bool) {
		for u, l := range p.users {
			if !yield(matrix.UserID(u), l) {
				return
			}
		}
	}
}
