package tenants["bank.example"].room.join_test

import data.hansa.points.contact
import data.tenants["bank.example"].room.join

_join(room_pools, pools) := {"room": {"pools": room_pools}, "subject": {"pools": pools}}

test_own_side if join.deny == set() with input as _join(["trading"], ["trading"])

test_other_side if count(join.deny) == 1 with input as _join(["trading"], ["advisory"])

test_nobodys_side if count(join.deny) == 1 with input as _join(["trading"], [])

test_compliance_enters_everywhere if join.deny == set() with input as _join(["trading"], ["compliance"])

test_rooms_without_side_are_open if join.deny == set() with input as _join([], ["advisory"])

# The library with pools.yaml of this folder: nobody needs Rego for the wall between people.
_meet(left, right) := answer if {
	answer := contact.decision.allow with input as {
		"point": "contact",
		"tenant": {"name": "bank.example", "timezone": "UTC"},
		"subject": {"kind": "user", "id": "", "tenant": "bank.example", "local": true, "listed": true, "pools": left},
		"target": {"kind": "user", "id": "", "tenant": "bank.example", "local": true, "listed": true, "pools": right},
	}
}

test_the_wall_between_people if {
	_meet(["advisory"], ["trading"]) == false
	_meet(["advisory"], ["compliance"]) == true
	_meet(["compliance"], ["trading"]) == true
	_meet(["trading"], []) == false
}
