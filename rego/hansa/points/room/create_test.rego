package hansa.points_test.room.create

import data.hansa.fixtures

_changed(change) := fixtures.decide("room.create", object.union(fixtures.accepted["room.create"], change))

test_accepted_input_is_allowed if fixtures.decide("room.create", fixtures.accepted["room.create"]).allow == true

test_person_of_another_tenant if {
	answer := _changed({"subject": fixtures.gus})
	answer.allow == false
	"other_tenant" in fixtures.codes(answer)
}

test_world_readable_history if {
	answer := _changed({"room": {"history_visibility": "world_readable"}})
	answer.allow == false
	"history_visibility" in fixtures.codes(answer)
}
