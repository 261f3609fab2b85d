package hansa.points_test.admin.action

import data.hansa.fixtures

_changed(change) := fixtures.decide("admin.action", object.union(fixtures.accepted["admin.action"], change))

test_accepted_input_is_allowed if fixtures.decide("admin.action", fixtures.accepted["admin.action"]).allow == true

test_person_without_role if {
	answer := _changed({"subject": fixtures.ann})
	answer.allow == false
	"missing_role" in fixtures.codes(answer)
}

test_administrator_of_another_tenant if {
	answer := _changed({"subject": object.union(fixtures.gus, {"roles": ["admin"]})})
	answer.allow == false
	"other_tenant" in fixtures.codes(answer)
}

test_break_glass_without_approval if {
	answer := _changed({"admin": {"action": "break_glass.read"}})
	answer.allow == false
	"approval_needed" in fixtures.codes(answer)
}

test_changes_are_recorded if {
	_changed({"admin": {"action": "user.lock"}}).obligations == {"record": "full"}
	_changed({"admin": {"action": "user.list"}}).obligations == {}
	_changed({"admin": {"action": "policy.status"}}).obligations == {}
	_changed({"admin": {"action": "audit.search"}}).obligations == {"record": "full"}
}
