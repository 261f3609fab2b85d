package tenants["ministry.example"].clearance_test

import data.tenants["ministry.example"].clearance

_person(level) := {"attributes": {"clearance": level}}

test_enough if clearance.cleared(_person("secret"), ["confidential"])

test_equal if clearance.cleared(_person("confidential"), ["confidential"])

test_too_low if clearance.cleared(_person("restricted"), ["confidential"]) == false

test_every_label_counts if clearance.cleared(_person("restricted"), ["restricted", "secret"]) == false

test_open_rooms_need_none if {
	clearance.cleared({"attributes": {}}, [])
	clearance.cleared({"attributes": {}}, ["open"])
}

test_unknown_label_is_the_strictest if {
	clearance.cleared(_person("confidential"), ["top-secret"]) == false
	clearance.cleared(_person("secret"), ["top-secret"])
}

test_unknown_clearance_is_none if clearance.cleared(_person("Secret"), ["restricted"]) == false
