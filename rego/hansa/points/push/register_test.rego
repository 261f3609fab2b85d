package hansa.points_test.push.register

import data.hansa.fixtures

_changed(change) := fixtures.decide("push.register", object.union(fixtures.accepted["push.register"], change))

test_accepted_input_is_allowed if fixtures.decide("push.register", fixtures.accepted["push.register"]).allow == true

test_gateway_without_a_name if {
	answer := _changed({"server": {"name": ""}})
	answer.allow == false
	"gateway_refused" in fixtures.codes(answer)
}
