package hansa.points_test.account.manage

import data.hansa.fixtures

_changed(change) := fixtures.decide("account.manage", object.union(fixtures.accepted["account.manage"], change))

test_accepted_input_is_allowed if fixtures.decide("account.manage", fixtures.accepted["account.manage"]).allow == true

test_another_account if {
	answer := _changed({"target": fixtures.sam})
	answer.allow == false
	"not_yours" in fixtures.codes(answer)
}

test_person_who_is_not_listed if {
	answer := _changed({"subject": object.union(fixtures.ann, {"listed": false})})
	answer.allow == false
	"not_listed" in fixtures.codes(answer)
}
