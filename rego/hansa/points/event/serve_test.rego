package hansa.points_test.event.serve

import data.hansa.fixtures

_changed(change) := fixtures.decide("event.serve", object.union(fixtures.accepted["event.serve"], change))

test_accepted_input_is_allowed if fixtures.decide("event.serve", fixtures.accepted["event.serve"]).allow == true

test_server_without_agreement if {
	answer := _changed({"server": {"agreement": {"state": "suspended"}}})
	answer.allow == false
	"no_agreement" in fixtures.codes(answer)
}

test_agreement_without_messages if {
	answer := _changed({"server": {"agreement": {"scope": {"features": ["profiles"]}}}})
	answer.allow == false
	fixtures.codes(answer) == {"feature_not_agreed"}
}

test_room_that_does_not_federate if {
	answer := _changed({"room": {"federate": false}})
	answer.allow == false
	fixtures.codes(answer) == {"internal_room"}
}
