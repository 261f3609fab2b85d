package hansa.lint.values_test

import data.hansa.fixtures
import data.hansa.lint.shape
import data.hansa.lint.values

test_every_kind_in_use_has_a_description if {
	used := {kind |
		some group in [shape.sections, shape.collections, {"pool": shape.pool}]
		some kinds in group
		some kind in kinds
	}
	used == object.keys(values.expected)
}

test_points_of_bridges_are_points if values.points - object.keys(fixtures.accepted) == set()

test_domain if {
	every entry in ["corp.example", "*.corp.example", "*", "corp.example:8448", "192.0.2.1", "[2001:db8::1]:8448", "localhost"] {
		values.domain(entry)
	}
	every entry in ["", "*corp.example", "*.", ".corp.example", "corp.example.", "a.*.example", "https://corp.example", "corp_example", 1, null] {
		values.domain(entry) == false
	}
}
