package auth

import (
	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
)

// MaxConditions bounds how many rooms of a join rule are looked at.
const MaxConditions = 50

// AllowedRooms reads the rooms of the conditions of a restricted join rule: whoever is in one of them may join.
//
// spec: client-server-api#conditions
func AllowedRooms(content jsontext.Value) []matrix.RoomID {
	list, ok := canonicaljson.Find(content, "allow")
	if !ok || jsontext.Value(list).Kind() != '[' {
		return nil
	}
	var out []matrix.RoomID
	for raw := range canonicaljson.Elements(list) {
		if jsontext.Value(raw).Kind() != '{' || textMember(raw, "type") != "m.room_membership" {
			continue
		}
		if id, err := matrix.ParseRoomID(textMember(raw, "room_id")); err == nil && len(out) < MaxConditions {
			out = append(out, id)
		}
	}
	return out
}
