package hansa.points_test.account.login

import data.hansa.fixtures

_changed(change) := fixtures.decide("account.login", object.union(fixtures.accepted["account.login"], change))

test_accepted_input_is_allowed if fixtures.decide("account.login", fixtures.accepted["account.login"]).allow == true

test_person_who_is_not_listed if {
	answer := _changed({"subject": object.union(fixtures.ann, {"listed": false})})
	answer.allow == false
	"not_listed" in fixtures.codes(answer)
}

test_guest if {
	answer := _changed({"subject": {"kind": "guest"}})
	answer.allow == false
	"kind_refused" in fixtures.codes(answer)
}

test_person_of_another_tenant if {
	answer := _changed({"subject": fixtures.gus})
	answer.allow == false
	"other_tenant" in fixtures.codes(answer)
}
