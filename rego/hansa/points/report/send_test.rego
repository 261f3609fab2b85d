package hansa.points_test.report.send

import data.hansa.fixtures

_changed(change) := fixtures.decide("report.send", object.union(fixtures.accepted["report.send"], change))

test_accepted_input_is_allowed if fixtures.decide("report.send", fixtures.accepted["report.send"]).allow == true

test_person_who_is_not_listed if {
	answer := _changed({"subject": object.union(fixtures.ann, {"listed": false})})
	answer.allow == false
	"not_listed" in fixtures.codes(answer)
}
