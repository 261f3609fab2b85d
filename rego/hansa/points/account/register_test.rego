package hansa.points_test.account.register

import data.hansa.fixtures

_changed(change) := fixtures.decide("account.register", object.union(fixtures.accepted["account.register"], change))

test_accepted_input_is_allowed if fixtures.decide("account.register", fixtures.accepted["account.register"]).allow == true

test_account_of_another_tenant if {
	answer := _changed({"target": fixtures.gus})
	answer.allow == false
	"other_tenant" in fixtures.codes(answer)
}

test_account_that_is_not_listed if {
	answer := _changed({"target": {"listed": false}})
	answer.allow == false
	"not_listed" in fixtures.codes(answer)
}

test_guest_account if {
	answer := _changed({"target": {"kind": "guest"}})
	answer.allow == false
	"kind_refused" in fixtures.codes(answer)
}

test_ghost_of_a_bridge_without_entry if {
	answer := _changed({"subject": object.union(fixtures.ghost, {"bridge": {"id": "other"}})})
	answer.allow == false
	"bridge_not_permitted" in fixtures.codes(answer)
}
