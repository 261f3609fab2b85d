package hansa.points_test.room.invite

import data.hansa.fixtures

_changed(change) := fixtures.decide("room.invite", object.union(fixtures.accepted["room.invite"], change))

test_accepted_input_is_allowed if fixtures.decide("room.invite", fixtures.accepted["room.invite"]).allow == true

test_target_out_of_reach if {
	answer := _changed({"contact": {"allow": false, "reverse": false}})
	answer.allow == false
	"no_contact" in fixtures.codes(answer)
}

test_target_who_may_only_reach_us if {
	answer := _changed({"contact": {"allow": false}})
	answer.allow == false
	"no_contact" in fixtures.codes(answer)
}

test_room_with_people_the_target_may_not_meet if {
	answer := _changed({"room": {"contact": {"allow": false}}})
	answer.allow == false
	"mixed_room" in fixtures.codes(answer)
}

test_internal_room if {
	answer := _changed({"room": {"federate": false}, "target": fixtures.gus, "agreements": fixtures.both_records})
	answer.allow == false
	"internal_room" in fixtures.codes(answer)
}

test_feature_that_is_not_agreed if {
	answer := _changed({"target": fixtures.gus, "agreements": {"outgoing": object.union(fixtures.record, {"scope": {"features": ["presence"]}})}})
	answer.allow == false
	"feature_not_agreed" in fixtures.codes(answer)
}

test_target_that_is_not_listed if {
	answer := _changed({"target": {"listed": false}})
	answer.allow == false
	"no_such_person" in fixtures.codes(answer)
}
