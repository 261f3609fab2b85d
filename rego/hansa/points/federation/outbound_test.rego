package hansa.points_test.federation.outbound

import data.hansa.fixtures

_changed(change) := fixtures.decide("federation.outbound", object.union(fixtures.accepted["federation.outbound"], change))

test_accepted_input_is_allowed if fixtures.decide("federation.outbound", fixtures.accepted["federation.outbound"]).allow == true

test_server_without_agreement if {
	answer := fixtures.decide("federation.outbound", object.remove(fixtures.accepted["federation.outbound"], ["server"]))
	answer.allow == false
	answer_of_stranger := _changed({"server": {"agreement": null}})
	answer_of_stranger.allow == false
	"no_agreement" in fixtures.codes(answer_of_stranger)
}

test_only_an_active_agreement_lets_out if {
	every state in ["proposed", "suspended", "ended", "expired", "Active", ""] {
		answer := _changed({"server": {"agreement": {"state": state}}})
		answer.allow == false
		"no_agreement" in fixtures.codes(answer)
	}
}

test_our_people_may_leave_a_former_partner if {
	every state in ["suspended", "ended", "expired"] {
		_changed({"server": {"agreement": {"state": state}}, "event": {"type": "m.room.member", "membership": "leave"}}).allow == true
	}
	every state in ["proposed", "", "unknown"] {
		_changed({"server": {"agreement": {"state": state}}, "event": {"type": "m.room.member", "membership": "leave"}}).allow == false
	}
	_changed({"server": {"agreement": {"state": "ended"}}, "event": {"type": "m.room.member", "membership": "join"}}).allow == false
}

test_strangers_are_not_even_told_of_leaving if {
	_changed({"server": {"agreement": null}, "event": {"type": "m.room.member", "membership": "leave"}}).allow == false
}
