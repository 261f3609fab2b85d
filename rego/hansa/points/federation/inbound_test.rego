package hansa.points_test.federation.inbound

import data.hansa.fixtures

_changed(change) := fixtures.decide("federation.inbound", object.union(fixtures.accepted["federation.inbound"], change))

test_accepted_input_is_allowed if fixtures.decide("federation.inbound", fixtures.accepted["federation.inbound"]).allow == true

test_server_without_agreement if {
	answer := fixtures.decide("federation.inbound", object.remove(fixtures.accepted["federation.inbound"], ["server"]))
	answer.allow == false
	answer_of_stranger := _changed({"server": {"agreement": null}})
	answer_of_stranger.allow == false
	"no_agreement" in fixtures.codes(answer_of_stranger)
}

test_only_an_active_agreement_opens_the_door if {
	every state in ["proposed", "suspended", "ended", "expired", "Active", ""] {
		answer := _changed({"server": {"agreement": {"state": state}}})
		answer.allow == false
		"no_agreement" in fixtures.codes(answer)
	}
}

test_a_former_partner_may_take_its_people_out if {
	every state in ["suspended", "ended", "expired"] {
		_changed({"server": {"agreement": {"state": state}}, "event": {"type": "m.room.member", "membership": "leave"}}).allow == true
	}
	every state in ["proposed", "", "unknown"] {
		_changed({"server": {"agreement": {"state": state}}, "event": {"type": "m.room.member", "membership": "leave"}}).allow == false
	}
	_changed({"server": {"agreement": {"state": "ended"}}, "event": {"type": "m.room.member", "membership": "join"}}).allow == false
}

test_a_stranger_may_not_even_leave if {
	_changed({"server": {"agreement": null}, "event": {"type": "m.room.member", "membership": "leave"}}).allow == false
}

test_what_our_people_do_next_to_a_stranger if {
	stranger := object.remove(fixtures.accepted["federation.inbound"], ["server"])
	stay := data.hansa.points.federation.inbound.decision with input as stranger with data.config as {}
	stay.obligations == {}
	leave := data.hansa.points.federation.inbound.decision with input as stranger
		with data.config as {"operator": {"rooms": {"strangers": "leave"}}}
	leave.allow == false
	leave.obligations == {"strangers": "leave"}
}
