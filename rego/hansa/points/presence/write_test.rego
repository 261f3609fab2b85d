package hansa.points_test.presence.write

import data.hansa.fixtures

_changed(change) := fixtures.decide("presence.write", object.union(fixtures.accepted["presence.write"], change))

test_accepted_input_is_allowed if fixtures.decide("presence.write", fixtures.accepted["presence.write"]).allow == true

test_person_of_another_tenant if {
	answer := _changed({"subject": fixtures.gus})
	answer.allow == false
	"other_tenant" in fixtures.codes(answer)
}
