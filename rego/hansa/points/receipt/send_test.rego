package hansa.points_test.receipt.send

import data.hansa.fixtures

_changed(change) := fixtures.decide("receipt.send", object.union(fixtures.accepted["receipt.send"], change))

test_accepted_input_is_allowed if fixtures.decide("receipt.send", fixtures.accepted["receipt.send"]).allow == true

test_mixed_room if {
	answer := _changed({"room": {"contact": {"allow": false}}})
	answer.allow == false
	"no_contact" in fixtures.codes(answer)
}

test_server_without_agreement if {
	answer := _changed({"server": {"name": "remote.example"}})
	answer.allow == false
	"no_agreement" in fixtures.codes(answer)
}

test_person_of_a_server_that_is_not_named if {
	answer := _changed({"subject": fixtures.rem})
	answer.allow == false
	"no_agreement" in fixtures.codes(answer)
}
