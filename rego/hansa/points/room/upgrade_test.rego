package hansa.points_test.room.upgrade

import data.hansa.fixtures

_changed(change) := fixtures.decide("room.upgrade", object.union(fixtures.accepted["room.upgrade"], change))

test_accepted_input_is_allowed if fixtures.decide("room.upgrade", fixtures.accepted["room.upgrade"]).allow == true

test_mixed_room if {
	answer := _changed({"room": {"contact": {"allow": false}}})
	answer.allow == false
	"mixed_room" in fixtures.codes(answer)
}
