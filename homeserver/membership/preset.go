package membership

import (
	"maps"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
)

// The presets of createRoom.
const (
	presetPrivate = "private_chat"
	presetTrusted = "trusted_private_chat"
	presetPublic  = "public_chat"
)

// The types of the events that make a room.
const (
	typeMember     = "m.room.member"
	typeCreate     = "m.room.create"
	typePower      = "m.room.power_levels"
	typeAlias      = "m.room.canonical_alias"
	typeJoinRules  = "m.room.join_rules"
	typeHistory    = "m.room.history_visibility"
	typeGuests     = "m.room.guest_access"
	typeEncryption = "m.room.encryption"
	typeName       = "m.room.name"
	typeTopic      = "m.room.topic"
	typeTombstone  = "m.room.tombstone"

	megolm = "m.megolm.v1.aes-sha2"
)

// presetState are the events that a preset stands for, in the order of the specification.
//
// spec: client-server-api#post_matrixclientv3createroom
func presetState(preset string) []stateEvent {
	rule, guests := "invite", "can_join"
	if preset == presetPublic {
		rule, guests = "public", "forbidden"
	}
	return []stateEvent{
		{Type: typeJoinRules, Content: text("join_rule", rule)},
		{Type: typeHistory, Content: text("history_visibility", "shared")},
		{Type: typeGuests, Content: text("guest_access", guests)},
	}
}

// text is a content with one string.
func text(key, value string) jsontext.Value {
	b, err := json.Marshal(map[string]string{key: value})
	if err != nil {
		return jsontext.Value("{}") // only where value is not UTF-8, which no caller passes
	}
	return b
}

// defaultPower are the power levels of a new room.
//
// spec: client-server-api#mroompower_levels
func defaultPower(v *matrix.RoomVersion, creator matrix.UserID, preset string, invited []matrix.UserID) map[string]any {
	users := map[string]any{}
	tombstone := 100
	if v.PrivilegedCreators {
		tombstone = 150 // above everybody who is not a creator
	} else {
		users[string(creator)] = 100
		if preset == presetTrusted {
			for _, u := range invited {
				users[string(u)] = 100
			}
		}
	}
	invite := 0
	if preset == presetPublic {
		invite = 50
	}
	return map[string]any{"users": users, "users_default": 0, "events_default": 0, "state_default": 50, "ban": 50, "kick": 50, "redact": 50,
		"invite": invite, "events": map[string]any{typeName: 50, "m.room.avatar": 50, typeAlias: 50, typePower: 100, typeHistory: 100,
			typeEncryption: 100, "m.room.server_acl": 100, typeTombstone: tombstone}}
}

// overlay puts the members of an object from a client over others.
func overlay(base map[string]any, object jsontext.Value) (map[string]any, error) {
	if len(object) == 0 {
		return base, nil
	}
	var over map[string]jsontext.Value
	if err := json.Unmarshal(object, &over); err != nil {
		return nil, matrix.BadJSON("power_level_content_override must be an object.")
	}
	out := maps.Clone(base)
	for k, v := range over {
		out[k] = v
	}
	return out, nil
}
