package tenants["ministry.example"].event.send_test

import data.tenants["ministry.example"].event.send

_ask(labels, servers) := {"tenant": {"name": "ministry.example"}, "room": {"labels": labels, "servers": servers}}

test_inside if send.deny == set() with input as _ask(["secret"], ["ministry.example"])

test_with_others if count(send.deny) == 1 with input as _ask(["secret"], ["ministry.example", "agency.example"])

test_open_rooms_with_others if send.deny == set() with input as _ask(["open"], ["ministry.example", "agency.example"])
