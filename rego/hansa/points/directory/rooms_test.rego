package hansa.points_test.directory.rooms

import data.hansa.fixtures

_changed(change) := fixtures.decide("directory.rooms", object.union(fixtures.accepted["directory.rooms"], change))

test_accepted_input_is_allowed if fixtures.decide("directory.rooms", fixtures.accepted["directory.rooms"]).allow == true

test_mixed_room if {
	answer := _changed({"room": {"contact": {"allow": false}}})
	answer.allow == false
	"mixed_room" in fixtures.codes(answer)
}

test_internal_room_for_another_server if {
	answer := _changed({"subject": fixtures.remote_server, "room": {"federate": false}, "server": {"name": "remote.example", "agreement": fixtures.one_sided}})
	answer.allow == false
	"internal_room" in fixtures.codes(answer)
}

test_server_without_agreement if {
	answer := _changed({"subject": fixtures.remote_server})
	answer.allow == false
	"no_agreement" in fixtures.codes(answer)
}
