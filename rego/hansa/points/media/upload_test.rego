package hansa.points_test.media.upload

import data.hansa.fixtures

_changed(change) := fixtures.decide("media.upload", object.union(fixtures.accepted["media.upload"], change))

test_accepted_input_is_allowed if fixtures.decide("media.upload", fixtures.accepted["media.upload"]).allow == true

test_person_of_another_tenant if {
	answer := _changed({"subject": fixtures.gus})
	answer.allow == false
	"other_tenant" in fixtures.codes(answer)
}
