package hansa.points_test.event.receive

import data.hansa.fixtures

_changed(change) := fixtures.decide("event.receive", object.union(fixtures.accepted["event.receive"], change))

test_accepted_input_is_allowed if fixtures.decide("event.receive", fixtures.accepted["event.receive"]).allow == true

test_sender_without_agreement if {
	answer := _changed({"server": {"agreement": {"state": "suspended"}}})
	answer.allow == false
	"no_agreement" in fixtures.codes(answer)
}

test_messages_that_are_not_agreed if {
	answer := _changed({"server": {"agreement": {"scope": {"features": ["presence"]}}}})
	answer.allow == false
	"feature_not_agreed" in fixtures.codes(answer)
}

test_mixed_room if {
	answer := _changed({"room": {"contact": {"allow": false}}})
	answer.allow == false
	"mixed_room" in fixtures.codes(answer)
}
