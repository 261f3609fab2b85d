package hansa.points_test.room.join

import data.hansa.fixtures

_changed(change) := fixtures.decide("room.join", object.union(fixtures.accepted["room.join"], change))

test_accepted_input_is_allowed if fixtures.decide("room.join", fixtures.accepted["room.join"]).allow == true

test_room_with_people_the_newcomer_may_not_meet if {
	answer := _changed({"room": {"contact": {"allow": false}}})
	answer.allow == false
	"mixed_room" in fixtures.codes(answer)
}

test_internal_room_of_another_tenant if {
	answer := _changed({"room": {"federate": false, "tenant": "globex.example"}})
	answer.allow == false
	"internal_room" in fixtures.codes(answer)
}

test_room_of_unknown_servers if {
	answer := _changed({"room": {"servers": null}})
	answer.allow == false
	"domain_refused" in fixtures.codes(answer)
}

test_newcomer_from_elsewhere_needs_an_agreement_about_messages if {
	foreign := {"subject": fixtures.rem, "server": {"name": "remote.example", "local": false, "agreement": fixtures.one_sided}}
	room := {"room": {"servers": ["acme.example", "remote.example"]}}
	_changed(object.union(foreign, room)).allow == true
	presence := object.union(foreign, {"server": {"name": "remote.example", "local": false, "agreement": {"state": "active", "mutual": false, "scope": {
		"direction": "both",
		"pools": "*",
		"features": ["presence"],
	}}}})
	answer := _changed(object.union(presence, room))
	answer.allow == false
	fixtures.codes(answer) == {"feature_not_agreed"}
}
