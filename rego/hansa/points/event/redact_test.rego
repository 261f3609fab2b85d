package hansa.points_test.event.redact

import data.hansa.fixtures

_changed(change) := fixtures.decide("event.redact", object.union(fixtures.accepted["event.redact"], change))

test_accepted_input_is_allowed if fixtures.decide("event.redact", fixtures.accepted["event.redact"]).allow == true

test_mixed_room if {
	answer := _changed({"room": {"contact": {"allow": false}}})
	answer.allow == false
	"mixed_room" in fixtures.codes(answer)
}
