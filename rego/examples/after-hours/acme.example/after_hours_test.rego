package tenants["acme.example"].room.invite_test

import data.tenants["acme.example"].room.invite

_invite(time, target_pools) := {
	"time": time,
	"tenant": {"name": "acme.example", "timezone": "Europe/Berlin"},
	"subject": {"pools": ["sales"]},
	"target": {"pools": target_pools},
}

test_suppliers_by_day if count(invite.deny) == 0 with input as _invite("2026-03-02T10:00:00Z", ["suppliers"])

test_suppliers_in_the_evening if {
	some reason in invite.deny with input as _invite("2026-03-02T18:30:00Z", ["suppliers"])
	reason.code == "after_hours"
}

test_the_time_is_that_of_the_tenant if {
	# 5:30 in London is 6:30 in Berlin.
	count(invite.deny) == 0 with input as _invite("2026-03-02T05:30:00Z", ["suppliers"])
}

test_marketing_in_the_evening if count(invite.deny) == 0 with input as _invite("2026-03-02T18:30:00Z", ["marketing"])
