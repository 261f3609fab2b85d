package hansa.points_test.room.publish

import data.hansa.fixtures

_changed(change) := fixtures.decide("room.publish", object.union(fixtures.accepted["room.publish"], change))

test_accepted_input_is_allowed if fixtures.decide("room.publish", fixtures.accepted["room.publish"]).allow == true

test_person_of_another_tenant if {
	answer := _changed({"subject": fixtures.gus})
	answer.allow == false
	"other_tenant" in fixtures.codes(answer)
}
