package hansa.points_test.event.send

import data.hansa.fixtures

_changed(change) := fixtures.decide("event.send", object.union(fixtures.accepted["event.send"], change))

test_accepted_input_is_allowed if fixtures.decide("event.send", fixtures.accepted["event.send"]).allow == true

test_mixed_room if {
	answer := _changed({"room": {"contact": {"allow": false}}})
	answer.allow == false
	"mixed_room" in fixtures.codes(answer)
}

test_person_who_is_not_listed if {
	answer := _changed({"subject": object.union(fixtures.ann, {"listed": false})})
	answer.allow == false
	"not_listed" in fixtures.codes(answer)
}

test_person_of_another_tenant if {
	answer := _changed({"subject": fixtures.gus})
	answer.allow == false
	"other_tenant" in fixtures.codes(answer)
}
