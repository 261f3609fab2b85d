package tenants["acme.example"].event.send_test

import data.tenants["acme.example"].event.send

test_with_the_partner if {
	count(send.deny) == 1 with input as {"time": "2027-06-01T00:00:00Z", "room": {"servers": ["acme.example", "globex.example"]}}
}

test_among_ourselves if {
	send.deny == set() with input as {"time": "2027-06-01T00:00:00Z", "room": {"servers": ["acme.example"]}}
}
