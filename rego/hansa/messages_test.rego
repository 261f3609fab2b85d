package hansa.messages_test

import data.hansa.fixtures
import data.hansa.messages

test_every_entry_has_a_code_and_a_sentence if {
	every name, text in messages.catalogue {
		regex.match(`^[a-z]+\.[a-z_]+$`, name)
		regex.match(`^[a-z_]+$`, text.code)
		regex.match(`^[A-Z].*\.$`, text.message)
	}
}

# The names of the checks that the points ask.
_asked contains name if {
	some area, act
	some part, checks in data.hansa.points[area][act]
	startswith(part, "_")
	is_object(checks)
	some name, _ in checks
}

_asked contains name if {
	some point in ["contact"]
	some name, _ in data.hansa.points[point]._checks
}

test_the_entries_are_the_checks_that_points_ask if {
	asked := _asked with input as fixtures.accepted["room.invite"] with data.config as fixtures.config
	asked == object.keys(messages.catalogue)
}
