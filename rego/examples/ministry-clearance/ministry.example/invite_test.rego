package tenants["ministry.example"].room.invite_test

import data.tenants["ministry.example"].room.invite

_ask(level) := {"room": {"labels": ["secret"]}, "target": {"attributes": {"clearance": level}}}

test_cleared if invite.deny == set() with input as _ask("secret")

test_not_cleared if count(invite.deny) == 1 with input as _ask("restricted")

test_person_without_attributes if count(invite.deny) == 1 with input as {"room": {"labels": ["secret"]}, "target": {}}
