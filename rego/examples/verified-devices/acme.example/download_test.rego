package tenants["acme.example"].media.download_test

import data.tenants["acme.example"].media.download

_ask(ip, verified) := {
	"tenant": {"name": "acme.example"},
	"subject": {"tenant": "acme.example", "device": {"id": "D", "verified": verified}},
	"request": {"ip": ip},
}

test_verified_outside if download.deny == set() with input as _ask("203.0.113.5", true)

test_unverified_outside if count(download.deny) == 1 with input as _ask("203.0.113.5", false)

test_unverified_in_the_office if download.deny == set() with input as _ask("10.1.2.3", false)

test_nothing_known_about_the_device if {
	count(download.deny) == 1 with input as {"tenant": {"name": "acme.example"}, "subject": {"tenant": "acme.example"}}
}

test_people_of_others_are_judged_by_their_tenant if {
	download.deny == set() with input as object.union(_ask("203.0.113.5", false), {"subject": {"tenant": "globex.example"}})
}
