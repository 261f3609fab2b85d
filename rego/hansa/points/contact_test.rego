package hansa.points_test.contact

import data.hansa.fixtures

_changed(change) := fixtures.decide("contact", object.union(fixtures.accepted.contact, change))

test_accepted_input_is_allowed if fixtures.decide("contact", fixtures.accepted.contact).allow == true

test_target_that_is_not_listed if {
	answer := _changed({"target": {"listed": false}})
	answer.allow == false
	"no_such_person" in fixtures.codes(answer)
}

test_restricted_pool if {
	answer := _changed({"target": fixtures.rita})
	answer.allow == false
	"pools_apart" in fixtures.codes(answer)
}

test_other_tenant_without_agreement if {
	answer := _changed({"target": fixtures.gus})
	answer.allow == false
	"no_agreement" in fixtures.codes(answer)
}

test_guest if {
	answer := _changed({"target": {"kind": "guest"}})
	answer.allow == false
	"kind_refused" in fixtures.codes(answer)
}

test_ghost_for_people_outside_its_pools if {
	answer := _changed({"target": fixtures.ghost})
	answer.allow == false
	"bridge_closed" in fixtures.codes(answer)
}

test_server_like_one_of_its_users if {
	asked := {"subject": fixtures.remote_server, "agreements": {"incoming": fixtures.one_sided}}
	_changed(asked).allow == true
	_changed(object.union(asked, {"target": fixtures.rita})).allow == false
	_changed({"subject": fixtures.remote_server}).allow == false
	_changed({"target": fixtures.remote_server, "agreements": {"outgoing": fixtures.one_sided}}).allow == true
}
