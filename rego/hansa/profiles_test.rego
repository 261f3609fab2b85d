package hansa.profiles_test

import data.hansa.fixtures
import data.hansa.profiles

_ask(field) := fixtures.ask("profile.write", {"subject": fixtures.ann, "target": fixtures.ann, "account": {"field": field}})

test_open_by_default if profiles.writable with input as _ask("displayname") with data.config as {}

test_locked_field if {
	profiles.writable == false with input as _ask("displayname") with data.config as {"acme.example": {"profiles": {"locked": ["displayname"]}}}
	profiles.writable with input as _ask("avatar_url") with data.config as {"acme.example": {"profiles": {"locked": ["displayname"]}}}
}

test_write if profiles.writable == false with input as _ask("avatar_url") with data.config as {"acme.example": {"profiles": {"write": "nobody"}}}

test_unnamed_field_is_refused_where_fields_are_locked if {
	profiles.writable == false with input as fixtures.ask("profile.write", {"subject": fixtures.ann})
		with data.config as {"acme.example": {"profiles": {"locked": ["displayname"]}}}
}

test_broken_list_permits_nothing if {
	profiles.writable == false with input as _ask("avatar_url") with data.config as {"acme.example": {"profiles": {"locked": "displayname"}}}
}

test_operator_writes_locked_fields if {
	profiles.writable with input as fixtures.ask("profile.write", {"subject": {"kind": "operator"}, "account": {"field": "displayname"}})
		with data.config as {"acme.example": {"profiles": {"locked": ["displayname"]}}}
}
