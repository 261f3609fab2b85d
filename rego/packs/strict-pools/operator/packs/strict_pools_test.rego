package operator.packs.strict_pools_test

import data.operator.contact
import data.operator.packs.strict_pools

_config := {"acme.example": {"custom": {"strict_pools": true}}}

_ask(subject, target) := {"tenant": {"name": "acme.example"}, "subject": subject, "target": target}

_person(pools) := {"kind": "user", "tenant": "acme.example", "pools": pools}

_denied(ours, theirs) if {
	count(contact.deny) == 1 with input as _ask(_person(ours), _person(theirs)) with data.config as _config
}

test_common_pool if not _denied(["staff", "sales"], ["staff"])

test_no_common_pool if _denied(["staff"], ["sales"])

test_no_pools if {
	_denied([], [])
	_denied(["staff"], [])
}

test_unknown_pools_are_no_common_pool if {
	same := {"kind": "user", "tenant": "acme.example"}
	count(strict_pools.reasons) == 1 with input as _ask(same, same) with data.config as _config
}

test_other_tenants_are_left_to_agreements if {
	partner := {"kind": "user", "tenant": "globex.example", "pools": []}
	strict_pools.reasons == set() with input as _ask(_person([]), partner) with data.config as _config
}

test_ghosts_are_left_to_bridges if {
	ghost := {"kind": "ghost", "tenant": "acme.example", "pools": []}
	strict_pools.reasons == set() with input as _ask(_person([]), ghost) with data.config as _config
}

test_only_for_tenants_that_want_it if {
	strict_pools.reasons == set() with input as _ask(_person([]), _person([])) with data.config as {}
}
