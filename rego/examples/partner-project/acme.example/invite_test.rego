package tenants["acme.example"].room.invite_test

import data.tenants["acme.example"].room.invite

_ask(time, target) := {"time": time, "subject": {"tenant": "acme.example"}, "target": {"tenant": target}}

test_during_the_project if invite.deny == set() with input as _ask("2026-06-01T00:00:00Z", "globex.example")

test_after_the_project if {
	some reason in invite.deny with input as _ask("2027-06-01T00:00:00Z", "globex.example")
	reason.message == "The project with globex.example is over."
}

test_own_people if invite.deny == set() with input as _ask("2027-06-01T00:00:00Z", "acme.example")
