package hansa.points_test.profile.read

import data.hansa.fixtures

_changed(change) := fixtures.decide("profile.read", object.union(fixtures.accepted["profile.read"], change))

test_accepted_input_is_allowed if fixtures.decide("profile.read", fixtures.accepted["profile.read"]).allow == true

test_target_out_of_reach if {
	answer := _changed({"contact": {"allow": false, "reverse": false}})
	answer.allow == false
	"no_contact" in fixtures.codes(answer)
}

test_profiles_that_is_not_agreed if {
	answer := _changed({"target": fixtures.gus, "agreements": {"outgoing": object.union(fixtures.record, {"scope": {"features": ["messages"]}})}})
	answer.allow == false
	"feature_not_agreed" in fixtures.codes(answer)
}

test_server_that_asks_for_its_users if {
	asked := {"subject": fixtures.remote_server, "agreements": {"incoming": fixtures.one_sided}}
	_changed(asked).allow == true
	without := _changed(object.union(asked, {"agreements": {"incoming": object.union(fixtures.one_sided, {"scope": {"features": ["calls"]}})}}))
	without.allow == false
	"feature_not_agreed" in fixtures.codes(without)
}
