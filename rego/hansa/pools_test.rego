package hansa.pools_test

import data.hansa.pools

_settings := {"acme.example": {
	"research": {"contact": "closed"},
	"board": {"contact": "closed"},
	"sales": {"contact": {"with": ["marketing", "suppliers", "research"]}},
	"marketing": {"contact": {"with": ["sales"]}},
	"suppliers": {"contact": {"with": ["sales"]}},
	"island": {"contact": {"with": []}},
	"staff": {"contact": "open"},
	"nameless": {"groups": ["x"]},
}}

_meet(left, right) := answer if {
	answer := pools.pair with data.config as _settings with input as {
		"tenant": {"name": "acme.example"},
		"subject": {"id": "@a:acme.example", "kind": "user", "tenant": "acme.example", "pools": left},
		"target": {"id": "@b:acme.example", "kind": "user", "tenant": "acme.example", "pools": right},
	}
}

# The table of docs/policies.md, row by row: pools of one, pools of the other, may they meet.
_table := [
	[[], [], true],
	[[], ["staff"], true],
	[["staff"], ["staff"], true],
	[["research"], ["research"], true],
	[["research"], [], false],
	[["research"], ["staff"], false],
	[["research"], ["board"], false],
	[["research", "staff"], ["staff"], false],
	[["research", "staff"], ["research", "staff"], true],
	[["research", "board"], ["board"], true],
	[["research", "board"], ["research"], true],
	[["research", "board"], ["sales"], false],
	[["sales"], ["sales"], true],
	[["sales"], ["marketing"], true],
	[["sales"], ["marketing", "staff"], true],
	[["sales"], [], false],
	[["sales"], ["staff"], false],
	[["sales"], ["research"], false],
	[["sales", "staff"], ["staff"], false],
	[["marketing"], ["suppliers"], false],
	[["marketing", "sales"], ["suppliers"], true],
	[["marketing", "research"], ["sales"], false],
	[["marketing", "research"], ["sales", "research"], true],
	[["island"], ["island"], true],
	[["island"], [], false],
	[["nameless"], [], false],
	[["nameless"], ["nameless"], true],
	[["unknown"], [], false],
	[["unknown"], ["unknown"], true],
	[["whitelist"], [], false],
]

test_table if {
	every row in _table { _meet(row[0], row[1]) == row[2] }
}

test_order_does_not_matter if {
	every row in _table { _meet(row[1], row[0]) == row[2] }
}

test_open_pools_never_widen if {
	every row in _table { _meet(array.concat(row[0], ["staff"]), row[1]) == row[2] }
}

test_order_and_repetition_of_pools_do_not_matter if {
	every row in _table { _meet(array.concat(array.reverse(row[0]), row[0]), row[1]) == row[2] }
}

test_a_link_needs_both_sides if {
	# Sales names research, research is closed and names nobody.
	_meet(["sales"], ["research"]) == false
}

test_without_data_people_without_pools_meet if {
	pools.pair with data.config as {} with input as {
		"tenant": {"name": "acme.example"},
		"subject": {"id": "@a:acme.example", "kind": "user", "tenant": "acme.example", "pools": []},
		"target": {"id": "@b:acme.example", "kind": "user", "tenant": "acme.example", "pools": []},
	}
}

test_missing_pools_meet_nobody if {
	pools.pair == false with data.config as {} with input as {
		"tenant": {"name": "acme.example"},
		"subject": {"id": "@a:acme.example", "kind": "user", "tenant": "acme.example"},
		"target": {"id": "@b:acme.example", "kind": "user", "tenant": "acme.example", "pools": []},
	}
}

test_another_tenant_cannot_judge_the_pools if {
	pools.pair == false with data.config as _settings with input as {
		"tenant": {"name": "globex.example"},
		"subject": {"id": "@a:acme.example", "kind": "user", "tenant": "acme.example", "pools": []},
		"target": {"id": "@b:acme.example", "kind": "user", "tenant": "acme.example", "pools": []},
	}
}

test_restricted_pools if {
	pools.restricted(["research", "staff", "sales", "unknown"]) == {"research", "sales", "unknown"} with data.config as _settings
		with input as {"tenant": {"name": "acme.example"}}
}

test_odd_contact_is_closed if {
	every odd in [null, "opened", true, [], ["staff"], {"with": "staff"}, {}] {
		pools.contact("p") == "closed" with data.config as {"acme.example": {"p": {"contact": odd}}}
			with input as {"tenant": {"name": "acme.example"}}
	}
}

# Every set of one or two of the pools.
_sets := {sorted |
	some a in object.keys(_settings["acme.example"])
	some b in object.keys(_settings["acme.example"])
	sorted := sort({a, b})
}

test_meeting_is_mutual_for_all_sets_of_pools if {
	count(_sets) > 30
	every left in _sets {
		every right in [["sales"], ["marketing", "research"]] { _meet(left, right) == _meet(right, left) }
	}
}

test_a_closed_pool_is_left_by_sharing_only if {
	every left in {pools_of | some pools_of in _sets; some pool in pools_of; pool in {"research", "board", "nameless"}} {
		every right in [["sales"], ["marketing"], ["staff"], []] { _meet_unless_shared(left, right) == false }
	}
}

# Whether two people with these pools may meet, false when they share a restricted pool.
_meet_unless_shared(left, right) := false if {
	some pool in left
	pool in right
	pool != "staff"
} else := _meet(left, right)
