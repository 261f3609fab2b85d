package hansa.points_test.url.preview

import data.hansa.fixtures

_changed(change) := fixtures.decide("url.preview", object.union(fixtures.accepted["url.preview"], change))

test_accepted_input_is_allowed if fixtures.decide("url.preview", fixtures.accepted["url.preview"]).allow == true

test_person_of_another_tenant if {
	answer := _changed({"subject": fixtures.gus})
	answer.allow == false
	"other_tenant" in fixtures.codes(answer)
}

test_address_without_a_host if {
	answer := _changed({"server": {"name": ""}})
	answer.allow == false
	"previews_off" in fixtures.codes(answer)
}
