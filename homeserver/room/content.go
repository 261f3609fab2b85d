package room

import (
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
)

// checkContent refuses what a server must not let its own users write, whatever a room version would accept from others.
//
// spec: client-server-api#mroommessage
// spec: rooms/v10#values-in-mroompower_levels-events-must-be-integers
func checkContent(d *Draft) error {
	if len(d.Type) == 0 || len(d.Type) > 255 || strings.IndexByte(d.Type, 0) >= 0 {
		return matrix.InvalidParam("The event type must have between 1 and 255 bytes and no NUL.")
	}
	if d.StateKey != nil && (len(*d.StateKey) > 255 || strings.IndexByte(*d.StateKey, 0) >= 0) {
		return matrix.InvalidParam("The state key must have at most 255 bytes and no NUL.")
	}
	switch {
	case d.StateKey == nil && d.Type == "m.room.message":
		if _, ok := stringMember(d.Content, "msgtype"); !ok {
			return matrix.BadJSON("A message needs a msgtype.")
		}
		if _, ok := stringMember(d.Content, "body"); !ok {
			return matrix.BadJSON("A message needs a body.")
		}
	case d.StateKey != nil && d.Type == "m.room.power_levels":
		return checkPowerLevels(d.Content)
	case d.StateKey != nil && d.Type == "m.room.create":
		return matrix.Errorf(400, matrix.CodeInvalidRoomState, "A room is created once.")
	}
	return nil
}

// checkPowerLevels wants integers everywhere, also in the old room versions that accept strings.
func checkPowerLevels(content jsontext.Value) error {
	var pl struct {
		Users         map[string]int64 `json:"users"`
		Events        map[string]int64 `json:"events"`
		Notifications map[string]int64 `json:"notifications"`
		UsersDefault  *int64           `json:"users_default"`
		EventsDefault *int64           `json:"events_default"`
		StateDefault  *int64           `json:"state_default"`
		Ban           *int64           `json:"ban"`
		Kick          *int64           `json:"kick"`
		Redact        *int64           `json:"redact"`
		Invite        *int64           `json:"invite"`
	}
	if err := json.Unmarshal(content, &pl); err != nil {
		return matrix.BadJSON("Power levels must be integers: %v.", err)
	}
	for user := range pl.Users {
		if _, err := matrix.ParseUserID(user); err != nil {
			return matrix.BadJSON("Power levels name %.80q, which is no user ID.", user)
		}
	}
	return nil
}

// Object makes the canonical JSON of an object of our own making.
func Object(members map[string]any) jsontext.Value {
	b, err := json.Marshal(members)
	if err == nil {
		b, err = canonicaljson.Canonicalize(b, true)
	}
	if err != nil {
		panic("room: content of our own making: " + err.Error())
	}
	return b
}
