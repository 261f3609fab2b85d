package tenants["ministry.example"].room.join_test

import data.tenants["ministry.example"].room.join

_ask(level) := {"room": {"labels": ["secret"]}, "subject": {"attributes": {"clearance": level}}}

test_cleared if join.deny == set() with input as _ask("secret")

test_not_cleared if count(join.deny) == 1 with input as _ask("restricted")

test_person_without_attributes if count(join.deny) == 1 with input as {"room": {"labels": ["secret"]}, "subject": {}}
