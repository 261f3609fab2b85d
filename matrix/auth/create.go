package auth

import (
	"errors"

	"github.com/go-json-experiment/json/jsontext"

	"hansa/matrix"
	"hansa/matrix/canonicaljson"
	"hansa/matrix/event"
)

// CheckCreate is the rule for the create event, which no state can authorise.
//
// spec: rooms/v1#authorisation-rules
// spec: rooms/v11#authorisation-rules
// spec: rooms/v12#authorisation-rules
func CheckCreate(ev *event.Event) error {
	v := ev.Version
	if !ev.Is(TypeCreate, "") {
		return deny("create.state_key", "A create event has the empty state key.")
	}
	if len(ev.PrevEvents) > 0 {
		return deny("create.prev_events", "A create event has no previous events.")
	}
	if v.RoomIDHash {
		if _, ok := canonicaljson.Find(ev.JSON, "room_id"); ok {
			return deny("create.room_id", "A create event of this room version has no room ID.")
		}
	} else if ev.RoomID.Server() == "" || ev.RoomID.Server() != ev.Sender.Server() {
		return deny("create.room_id", "The room ID does not belong to the server of the sender.")
	}
	if raw, ok := canonicaljson.Find(ev.Content, "room_version"); ok {
		id, isText := canonicaljson.String(raw)
		if _, known := matrix.FindRoomVersion(id); !isText || !known {
			return deny("create.room_version", "The room version %.32s is not known.", raw)
		}
	}
	if _, ok := canonicaljson.Find(ev.Content, "creator"); !ok && v.CreatorField {
		return deny("create.creator", "The create event names no creator.")
	}
	if v.PrivilegedCreators {
		if _, err := additionalCreators(ev.Content); err != nil {
			return deny("create.additional_creators", "The list of additional creators is malformed: %v.", err)
		}
	}
	return nil
}

// additionalCreators reads the further creators of a room of version 12 or later.
func additionalCreators(content jsontext.Value) ([]matrix.UserID, error) {
	raw, ok := canonicaljson.Find(content, "additional_creators")
	if !ok {
		return nil, nil
	}
	if jsontext.Value(raw).Kind() != '[' {
		return nil, errors.New("additional_creators is not a list")
	}
	var users []matrix.UserID
	for value := range canonicaljson.Elements(raw) {
		s, isText := canonicaljson.String(value)
		if !isText {
			return nil, errors.New("additional_creators holds something that is not a string")
		}
		if _, err := matrix.ParseUserID(s); err != nil {
			return nil, err
		}
		users = append(users, matrix.UserID(s))
	}
	return users, nil
}
