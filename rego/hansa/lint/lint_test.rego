package hansa.lint_test

_paths(config) := paths if {
	paths := {problem.path | some problem in data.hansa.lint.errors} with data.config as config
}

_warned(config, tenants) := paths if {
	paths := {problem.path | some problem in data.hansa.lint.warnings} with data.config as config with input as {"tenants": tenants}
}

_acme(settings) := {"acme.example": settings}

test_no_settings_are_fine if _paths({}) == set()

test_two_pools_are_fine if {
	_paths(_acme({
		"research": {"groups": ["rnd"], "contact": "closed"},
		"sales": {"groups": ["sales"], "contact": {"with": ["marketing", "suppliers"]}},
	})) == set()
}

test_every_section_filled_is_fine if {
	_paths(_acme({
		"whitelist": {"enabled": true, "users": ["@ann:acme.example"], "groups": ["staff"]},
		"domains": {"allow": ["*.corp.example", "partner.example:8448", "*"], "deny": ["[2001:db8::1]"]},
		"bridges": {"irc": {"points": ["event.send"], "contact": ["staff"], "partners": false}, "mail": {"points": [], "contact": "everyone"}},
		"content": {
			"types": {"deny": ["m.call.*"]}, "msgtypes": {"allow": ["m.text"]}, "mimetypes": {"allow": ["image/*"], "deny": []},
			"max_bytes": 1000, "max_upload_bytes": 0, "encryption": "required",
		},
		"sessions": {
			"login": {"groups": ["staff"]}, "networks": ["10.0.0.0/8"], "exempt": "nobody",
			"hours": {"from": "06:00", "to": "24:00", "days": ["mon"], "timezone": "Europe/Berlin"},
		},
		"rooms": {
			"create": "everyone", "public": "nobody", "publish": {"roles": ["admin"]}, "alias": "everyone", "invite": "everyone",
			"federate": "never", "join_rules": ["invite"], "history_visibility": ["joined"], "versions": ["12"], "types": ["m.space"],
			"max_members": 100, "mixed": "keep", "partner_history": ["joined", "invited"], "strangers": "leave",
		},
		"profiles": {"locked": ["displayname"], "write": "everyone"},
		"push": {"gateways": ["push.example"], "content": false},
		"previews": {"enabled": true, "allow": ["news.example"], "deny": []},
		"admin": {"roles": {"helpdesk": ["user.lock"]}, "approval": ["user.wipe"]},
		"partners": {"globex.example": {"state": "active", "direction": "both", "pools": [{"ours": "a", "theirs": "*"}], "features": ["messages"], "valid_from": "2026-01-01", "valid_until": "2027-01-31T18:00:00Z"}},
		"tenant": {"timezone": "Europe/Berlin"},
		"custom": {"anything": [1, {"x": null}]},
		"staff": {"title": "Staff", "groups": ["staff"], "users": ["@x:acme.example"], "contact": "open"},
	})) == set()
}

# Settings with one mistake each, and where it is found.
_mistakes := {
	"acme.example/whitelist": {"whitelist": true},
	"acme.example/whitelist/enabled": {"whitelist": {"enabled": "true"}},
	"acme.example/whitelist/enable": {"whitelist": {"enable": true}},
	"acme.example/whitelist/users": {"whitelist": {"users": ["@ann:globex.example"]}},
	"acme.example/whitelist/groups": {"whitelist": {"groups": "staff"}},
	"acme.example/domains/allow": {"domains": {"allow": ["*corp.example"]}},
	"acme.example/domains/deny": {"domains": {"deny": null}},
	"acme.example/bridges": {"bridges": ["irc"]},
	"acme.example/bridges/irc": {"bridges": {"irc": "all"}},
	"acme.example/bridges/irc/points": {"bridges": {"irc": {"points": ["event.write"]}}},
	"acme.example/content/encryption": {"content": {"encryption": true}},
	"acme.example/content/max_bytes": {"content": {"max_bytes": "10k"}},
	"acme.example/content/max_upload_bytes": {"content": {"max_upload_bytes": -1}},
	"acme.example/content/mimetypes": {"content": {"mimetypes": ["image/*"]}},
	"acme.example/sessions/hours": {"sessions": {"hours": {"from": "6:00", "to": "18:00"}}},
	"acme.example/sessions/networks": {"sessions": {"networks": ["10.0.0.0"]}},
	"acme.example/sessions/login": {"sessions": {"login": {"pool": ["staff"]}}},
	"acme.example/rooms": {"rooms": null},
	"acme.example/rooms/create": {"rooms": {"create": {}}},
	"acme.example/rooms/federate": {"rooms": {"federate": false}},
	"acme.example/rooms/history_visibility": {"rooms": {"history_visibility": ["public"]}},
	"acme.example/rooms/max_members": {"rooms": {"max_members": 1.5}},
	"acme.example/profiles/lock": {"profiles": {"lock": ["displayname"]}},
	"acme.example/push/gateways": {"push": {"gateways": "push.example"}},
	"acme.example/previews/enabled": {"previews": {"enabled": 1}},
	"acme.example/admin/roles": {"admin": {"roles": {"helpdesk": "user.lock"}}},
	"acme.example/partners/globex.example/features": {"partners": {"globex.example": {"pools": "*"}}},
	"acme.example/partners/globex.example/pools": {"partners": {"globex.example": {"pools": [{"ours": "a"}], "features": "*"}}},
	"acme.example/partners/globex.example/state": {"partners": {"globex.example": {"state": "on", "pools": "*", "features": "*"}}},
	"acme.example/partners/*.corp.example": {"partners": {"*.corp.example": {"pools": "*", "features": "*"}}},
	"acme.example/partners/globex.example/valid_until": {"partners": {"globex.example": {"valid_until": "tomorrow", "pools": "*", "features": "*"}}},
	"acme.example/tenant/zone": {"tenant": {"zone": "UTC"}},
	"acme.example/operator": {"operator": {"contact": "open"}},
	"acme.example/research": {"research": "closed"},
	"acme.example/research/contact": {"research": {"contact": "close"}},
	"acme.example/research/contcat": {"research": {"contcat": "closed"}},
	"acme.example/sales/contact": {"sales": {"contact": {"wiht": ["marketing"]}}},
	"acme.example/whitelst/enabled": {"whitelst": {"enabled": true}},
}

test_each_mistake_is_found_where_it_is if {
	every path, settings in _mistakes { _paths(_acme(settings)) == {path} }
}

test_operator_has_no_pools_and_no_whitelist if {
	_paths({"operator": {"research": {"contact": "closed"}}}) == {"operator/research"}
	_paths({"operator": {"whitelist": {"enabled": true}}}) == {"operator/whitelist"}
	_paths({"operator": {"rooms": {"mixed": "keep"}}}) == {"operator/rooms/mixed"}
	_paths({"operator": {"domains": {"deny": ["evil.example"]}, "custom": {"x": 1}}}) == set()
}

test_a_folder_is_a_mapping if _paths({"acme.example": "closed"}) == {"acme.example"}

test_links_to_nowhere_and_one_sided_links_are_warned_of if {
	_warned(_acme({"sales": {"contact": {"with": ["marketing"]}}}), ["acme.example"]) == {"acme.example/sales/contact"}
	_warned(_acme({"sales": {"contact": {"with": ["legal"]}}, "legal": {"contact": "closed"}}), ["acme.example"]) == {"acme.example/sales/contact"}
	_warned(_acme({"sales": {"contact": {"with": ["legal"]}}, "legal": {"contact": {"with": ["sales"]}}}), ["acme.example"]) == set()
	_warned(_acme({"sales": {"contact": {"with": ["staff"]}}, "staff": {"contact": "open"}}), ["acme.example"]) == set()
}

test_unknown_pools_are_warned_of if {
	_warned(_acme({"partners": {"globex.example": {"pools": [{"ours": "lab", "theirs": "*"}]}}}), ["acme.example"]) == {"acme.example/partners/globex.example/pools"}
	_warned(_acme({"bridges": {"irc": {"contact": ["lab"]}}}), ["acme.example"]) == {"acme.example/bridges/irc/contact"}
}

test_empty_lists_are_warned_of if {
	_warned(_acme({"whitelist": {"enabled": true}}), ["acme.example"]) == {"acme.example/whitelist"}
	_warned(_acme({"domains": {"allow": []}}), ["acme.example"]) == {"acme.example/domains/allow"}
}

test_folders_without_tenant_are_warned_of if {
	_warned({"acm.example": {}, "operator": {}}, ["acme.example"]) == {"acm.example"}
	_warned({"acm.example": {}}, null) == set()
}
