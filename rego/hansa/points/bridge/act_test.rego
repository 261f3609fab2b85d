package hansa.points_test.bridge.act

import data.hansa.fixtures

_changed(change) := fixtures.decide("bridge.act", object.union(fixtures.accepted["bridge.act"], change))

test_accepted_input_is_allowed if fixtures.decide("bridge.act", fixtures.accepted["bridge.act"]).allow == true

test_bridge_without_entry if {
	answer := _changed({"subject": {"bridge": {"id": "other"}}})
	answer.allow == false
	"bridge_not_permitted" in fixtures.codes(answer)
}
