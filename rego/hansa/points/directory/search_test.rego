package hansa.points_test.directory.search

import data.hansa.fixtures

_changed(change) := fixtures.decide("directory.search", object.union(fixtures.accepted["directory.search"], change))

test_accepted_input_is_allowed if fixtures.decide("directory.search", fixtures.accepted["directory.search"]).allow == true

test_target_out_of_reach if {
	answer := _changed({"contact": {"allow": false, "reverse": false}})
	answer.allow == false
	"no_contact" in fixtures.codes(answer)
}

test_target_who_may_only_reach_us if {
	answer := _changed({"contact": {"allow": false}})
	answer.allow == false
	"no_contact" in fixtures.codes(answer)
}

test_target_that_is_not_listed if {
	answer := _changed({"target": {"listed": false}})
	answer.allow == false
	"no_such_person" in fixtures.codes(answer)
}

test_directory_that_is_not_agreed if {
	answer := _changed({"target": fixtures.gus, "agreements": {"outgoing": object.union(fixtures.record, {"scope": {"features": ["messages"]}})}})
	answer.allow == false
	"feature_not_agreed" in fixtures.codes(answer)
}
