package hansa.points_test.search.messages

import data.hansa.fixtures

_changed(change) := fixtures.decide("search.messages", object.union(fixtures.accepted["search.messages"], change))

test_accepted_input_is_allowed if fixtures.decide("search.messages", fixtures.accepted["search.messages"]).allow == true

test_room_that_was_never_joined if {
	answer := _changed({"room": {"membership": "", "contact": {"allow": false}}})
	answer.allow == false
	"not_a_member" in fixtures.codes(answer)
}
