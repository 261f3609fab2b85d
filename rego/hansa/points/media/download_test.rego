package hansa.points_test.media.download

import data.hansa.fixtures

_changed(change) := fixtures.decide("media.download", object.union(fixtures.accepted["media.download"], change))

test_accepted_input_is_allowed if fixtures.decide("media.download", fixtures.accepted["media.download"]).allow == true

test_file_of_a_server_without_agreement if {
	answer := _changed({"media": {"server": "remote.example"}, "server": {"name": "remote.example"}})
	answer.allow == false
	"no_agreement" in fixtures.codes(answer)
}

test_file_of_another_server_than_was_judged if {
	answer := _changed({"media": {"server": "evil.example"}, "server": {"name": "remote.example", "agreement": fixtures.one_sided}})
	answer.allow == false
	"wrong_origin" in fixtures.codes(answer)
}

test_files_that_are_not_agreed if {
	answer := _changed({"media": {"server": "remote.example"}, "server": {"name": "remote.example", "agreement": object.union(fixtures.one_sided, {"scope": {"features": ["messages"]}})}})
	answer.allow == false
	"feature_not_agreed" in fixtures.codes(answer)
}

test_file_of_a_person_out_of_reach if {
	answer := _changed({"target": fixtures.rita, "contact": {"allow": false, "reverse": false}})
	answer.allow == false
	"no_contact" in fixtures.codes(answer)
}
