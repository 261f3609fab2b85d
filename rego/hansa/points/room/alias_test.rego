package hansa.points_test.room.alias

import data.hansa.fixtures

_changed(change) := fixtures.decide("room.alias", object.union(fixtures.accepted["room.alias"], change))

test_accepted_input_is_allowed if fixtures.decide("room.alias", fixtures.accepted["room.alias"]).allow == true

test_person_of_another_tenant if {
	answer := _changed({"subject": fixtures.gus})
	answer.allow == false
	"other_tenant" in fixtures.codes(answer)
}

test_look_up_without_agreement if {
	answer := _changed({"server": {"name": "remote.example"}})
	answer.allow == false
	"no_agreement" in fixtures.codes(answer)
}

test_look_up_that_is_not_agreed if {
	answer := _changed({"server": {"name": "remote.example", "agreement": object.union(fixtures.one_sided, {"scope": {"features": ["messages"]}})}})
	answer.allow == false
	"feature_not_agreed" in fixtures.codes(answer)
}
