package hansa.points_test.room.state

import data.hansa.fixtures

_changed(change) := fixtures.decide("room.state", object.union(fixtures.accepted["room.state"], change))

test_accepted_input_is_allowed if fixtures.decide("room.state", fixtures.accepted["room.state"]).allow == true

test_mixed_room if {
	answer := _changed({"room": {"contact": {"allow": false}}})
	answer.allow == false
	"mixed_room" in fixtures.codes(answer)
}

test_world_readable_history if {
	answer := _changed({"event": {"type": "m.room.history_visibility", "value": "world_readable"}})
	answer.allow == false
	"history_visibility" in fixtures.codes(answer)
}

test_encryption_that_is_none if {
	answer := _changed({"event": {"type": "m.room.encryption", "value": ""}})
	answer.allow == false
	"encryption_rule" in fixtures.codes(answer)
}

test_the_list_of_servers_in_a_room_with_a_stranger if {
	_changed({"room": {"contact": {"allow": false}}, "event": {"type": "m.room.server_acl", "state_key": ""}}).allow == true
	_changed({"room": {"contact": {"allow": false}}, "event": {"type": "m.room.server_acl", "state_key": "x"}}).allow == false
}
