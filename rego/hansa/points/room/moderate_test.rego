package hansa.points_test.room.moderate

import data.hansa.fixtures

_changed(change) := fixtures.decide("room.moderate", object.union(fixtures.accepted["room.moderate"], change))

test_accepted_input_is_allowed if fixtures.decide("room.moderate", fixtures.accepted["room.moderate"]).allow == true

test_person_of_a_server_without_agreement if {
	answer := _changed({"subject": fixtures.rem})
	answer.allow == false
	"may_not_remove" in fixtures.codes(answer)
}
