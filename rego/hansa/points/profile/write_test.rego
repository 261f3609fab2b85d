package hansa.points_test.profile.write

import data.hansa.fixtures

_changed(change) := fixtures.decide("profile.write", object.union(fixtures.accepted["profile.write"], change))

test_accepted_input_is_allowed if fixtures.decide("profile.write", fixtures.accepted["profile.write"]).allow == true

test_another_profile if {
	answer := _changed({"target": fixtures.sam})
	answer.allow == false
	"not_yours" in fixtures.codes(answer)
}
