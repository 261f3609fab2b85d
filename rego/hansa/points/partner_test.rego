package hansa.points_test.partner

import data.hansa.fixtures

_changed(change) := fixtures.decide("partner", object.union(fixtures.accepted.partner, change))

test_accepted_input_is_allowed if fixtures.decide("partner", fixtures.accepted.partner).allow == true

test_server_without_agreement if {
	answer := _changed({"server": {"agreement": {"state": "ended"}}})
	answer.allow == false
	"no_agreement" in fixtures.codes(answer)
}
