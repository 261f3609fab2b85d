package hansa.points_test.room.read

import data.hansa.fixtures

_changed(change) := fixtures.decide("room.read", object.union(fixtures.accepted["room.read"], change))

test_accepted_input_is_allowed if fixtures.decide("room.read", fixtures.accepted["room.read"]).allow == true

test_room_that_was_never_joined if {
	answer := _changed({"room": {"membership": "", "contact": {"allow": false}}})
	answer.allow == false
	"not_a_member" in fixtures.codes(answer)
}

test_server_without_agreement if {
	answer := _changed({"subject": fixtures.remote_server, "server": {"name": "remote.example"}})
	answer.allow == false
	"no_agreement" in fixtures.codes(answer)
}
