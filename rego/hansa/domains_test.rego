package hansa.domains_test

import data.hansa.domains

_permitted(name, tenant, operator) if {
	domains.permitted(name) with input as {"tenant": {"name": "acme.example"}}
		with data.config as {"acme.example": {"domains": tenant}, "operator": {"domains": operator}}
}

test_no_lists_permit_every_name if _permitted("corp.example", {}, {})

test_own_name_is_always_permitted if _permitted("acme.example", {"allow": []}, {"deny": ["*"]})

test_empty_allow_permits_nobody if not _permitted("corp.example", {"allow": []}, {})

test_allow_permits_the_listed if {
	_permitted("corp.example", {"allow": ["corp.example"]}, {})
	not _permitted("other.example", {"allow": ["corp.example"]}, {})
}

test_a_name_that_only_ends_alike_is_another if {
	not _permitted("evilcorp.example", {"allow": ["corp.example"]}, {})
	not _permitted("evilcorp.example", {"allow": ["*.corp.example"]}, {})
	_permitted("evilcorp.example", {"deny": ["corp.example"]}, {})
}

test_the_operator_narrows if {
	not _permitted("corp.example", {"allow": ["corp.example"]}, {"deny": ["corp.example"]})
	not _permitted("corp.example", {}, {"allow": []})
}

test_the_tenant_cannot_widen if not _permitted("corp.example", {"allow": ["*"]}, {"allow": ["other.example"]})

test_broken_lists_permit_nobody if {
	every broken in [null, "corp.example", {}, 1] {
		not _permitted("corp.example", {"allow": broken}, {})
		not _permitted("corp.example", {"deny": broken}, {})
	}
}

test_room_with_permitted_servers_only if {
	domains.room with input as {"tenant": {"name": "acme.example"}, "room": {"servers": ["acme.example", "corp.example"]}}
		with data.config as {"acme.example": {"domains": {"allow": ["corp.example"]}}}
	domains.room == false with input as {"tenant": {"name": "acme.example"}, "room": {"servers": ["acme.example", "evil.example"]}}
		with data.config as {"acme.example": {"domains": {"allow": ["corp.example"]}}}
}

test_room_without_a_list_of_servers_is_refused if {
	domains.room == false with input as {"tenant": {"name": "acme.example"}, "room": {}} with data.config as {}
}

test_subject_target_and_server if {
	_question := {
		"tenant": {"name": "acme.example"},
		"subject": {"tenant": "a.example"}, "target": {"tenant": "b.example"}, "server": {"name": "c.example"},
	}
	_settings := {"acme.example": {"domains": {"allow": ["a.example", "c.example"]}}}
	domains.subject with input as _question with data.config as _settings
	domains.target == false with input as _question with data.config as _settings
	domains.server with input as _question with data.config as _settings
}
