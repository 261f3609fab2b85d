package hansa.points_test.room.leave

import data.hansa.fixtures

_changed(change) := fixtures.decide("room.leave", object.union(fixtures.accepted["room.leave"], change))

test_accepted_input_is_allowed if fixtures.decide("room.leave", fixtures.accepted["room.leave"]).allow == true

test_nobody if {
	answer := _changed({"subject": {"id": ""}})
	answer.allow == false
	"no_subject" in fixtures.codes(answer)
}
