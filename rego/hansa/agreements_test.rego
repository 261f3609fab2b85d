package hansa.agreements_test

import data.hansa.agreements
import data.hansa.fixtures

_pair(asked, subject, target, records) := answer if {
	answer := agreements.pair with data.config as fixtures.config with input as {
		"tenant": {"name": asked},
		"subject": subject,
		"target": target,
		"agreements": records,
	}
}

_scoped(scope) := object.union(fixtures.record, {"scope": scope})

_changed(record, change) := object.union(record, change)

test_same_tenant_needs_none if _pair("acme.example", fixtures.ann, fixtures.sam, {}) == true

test_both_sides_active if {
	_pair("acme.example", fixtures.ann, fixtures.gus, fixtures.both_records) == true
	_pair("globex.example", fixtures.ann, fixtures.gus, fixtures.both_records) == true
}

test_none if _pair("acme.example", fixtures.ann, fixtures.gus, {}) == false

test_one_side_is_not_enough if {
	_pair("acme.example", fixtures.ann, fixtures.gus, {"outgoing": fixtures.record}) == false
	_pair("acme.example", fixtures.ann, fixtures.gus, {"incoming": fixtures.record}) == false
}

test_one_sided_record_does_not_speak_for_a_hosted_tenant if {
	_pair("acme.example", fixtures.ann, fixtures.gus, {"outgoing": fixtures.one_sided}) == false
	_pair("acme.example", fixtures.ann, fixtures.gus, {"incoming": fixtures.one_sided}) == false
}

test_every_other_state_is_refused if {
	every state in ["proposed", "suspended", "ended", "expired", "Active", "", null, true] {
		bad := _changed(fixtures.record, {"state": state})
		_pair("acme.example", fixtures.ann, fixtures.gus, {"outgoing": bad, "incoming": fixtures.record}) == false
		_pair("acme.example", fixtures.ann, fixtures.gus, {"outgoing": fixtures.record, "incoming": bad}) == false
	}
}

test_direction_seen_from_each_owner if {
	outbound := _scoped({"direction": "outbound", "pools": "*", "features": "*"})
	inbound := _scoped({"direction": "inbound", "pools": "*", "features": "*"})
	_pair("acme.example", fixtures.ann, fixtures.gus, {"outgoing": outbound, "incoming": inbound}) == true
	_pair("acme.example", fixtures.gus, fixtures.ann, {"outgoing": inbound, "incoming": outbound}) == false
}

test_star_leaves_restricted_pools_out if {
	_pair("acme.example", fixtures.rita, fixtures.gus, fixtures.both_records) == false
	_pair("globex.example", fixtures.ann, fixtures.gil, fixtures.both_records) == false
}

test_named_pair_of_pools if {
	records := {
		"outgoing": _scoped({"direction": "both", "pools": [{"ours": "research", "theirs": "lab"}], "features": "*"}),
		"incoming": _scoped({"direction": "both", "pools": [{"ours": "lab", "theirs": "research"}], "features": "*"}),
	}
	_pair("acme.example", fixtures.rita, fixtures.gil, records) == true
	_pair("globex.example", fixtures.rita, fixtures.gil, records) == true
	_pair("acme.example", fixtures.ann, fixtures.gil, records) == false
	_pair("acme.example", fixtures.rita, fixtures.gus, records) == false
	_pair("acme.example", fixtures.ann, fixtures.gus, records) == false
}

test_pairs_cannot_be_crossed if {
	records := {
		"outgoing": _scoped({"direction": "both", "pools": [{"ours": "research", "theirs": "lab"}, {"ours": "sales", "theirs": "shop"}], "features": "*"}),
		"incoming": fixtures.record,
	}
	shop := fixtures.user("@s:globex.example", "globex.example", ["shop"])
	_pair("acme.example", fixtures.rita, shop, records) == false
	_pair("acme.example", fixtures.sam, shop, records) == true
	_pair("acme.example", fixtures.sam, fixtures.gil, records) == false
}

test_half_stars if {
	record := _scoped({"direction": "both", "pools": [{"ours": "research", "theirs": "*"}], "features": "*"})
	_pair("acme.example", fixtures.rita, fixtures.gus, {"outgoing": record, "incoming": fixtures.record}) == true
	_pair("acme.example", fixtures.ann, fixtures.gus, {"outgoing": record, "incoming": fixtures.record}) == false
}

test_empty_or_missing_scope_covers_nobody if {
	every scope in [{"direction": "both", "pools": [], "features": "*"}, {"direction": "both", "features": "*"}, {"pools": "*", "features": "*"}] {
		record := object.union(object.remove(fixtures.record, ["scope"]), {"scope": scope})
		_pair("acme.example", fixtures.ann, fixtures.gus, {"outgoing": record, "incoming": fixtures.record}) == false
	}
	_pair("acme.example", fixtures.ann, fixtures.gus, {"outgoing": {"state": "active", "mutual": true}, "incoming": fixtures.record}) == false
}

test_server_elsewhere_by_one_side if {
	_pair("acme.example", fixtures.ann, fixtures.rem, {"outgoing": fixtures.one_sided}) == true
	_pair("acme.example", fixtures.rem, fixtures.ann, {"incoming": fixtures.one_sided}) == true
}

test_server_elsewhere_that_keeps_records_must_have_one if {
	_pair("acme.example", fixtures.ann, fixtures.rem, {"outgoing": fixtures.record}) == false
	_pair("acme.example", fixtures.ann, fixtures.rem, {"outgoing": fixtures.record, "incoming": fixtures.record}) == true
}

test_server_elsewhere_cannot_bring_the_only_record if {
	_pair("acme.example", fixtures.ann, fixtures.rem, {"incoming": fixtures.one_sided}) == false
	_pair("acme.example", fixtures.rem, fixtures.ann, {"outgoing": fixtures.one_sided}) == false
}

test_two_foreign_people_are_nobodys_pair if {
	other := fixtures.remote_user("@o:other.example", "other.example")
	_pair("acme.example", fixtures.rem, other, fixtures.both_records) == false
}

test_partner_settings_narrow if {
	_narrowed := {"acme.example": {"partners": {"globex.example": {"pools": [{"ours": "desk", "theirs": "*"}], "features": ["messages"]}}}}
	desk := fixtures.user("@d:acme.example", "acme.example", ["desk"])
	_open := object.union(_narrowed, {"acme.example": {"desk": {"contact": "open"}}})
	agreements.pair with data.config as _open with input as {
		"tenant": {"name": "acme.example"}, "subject": desk, "target": fixtures.gus, "agreements": fixtures.both_records,
	}
	agreements.pair with data.config as _open with input as {
		"tenant": {"name": "acme.example"}, "subject": fixtures.gus, "target": desk, "agreements": fixtures.both_records,
	}
	agreements.pair == false with data.config as _open with input as {
		"tenant": {"name": "acme.example"}, "subject": fixtures.ann, "target": fixtures.gus, "agreements": fixtures.both_records,
	}
	agreements.pair == false with data.config as _open with input as {
		"tenant": {"name": "acme.example"}, "subject": desk, "target": fixtures.gus, "agreements": {},
	}
}

test_suspended_partner_settings_refuse if {
	_settings := {"acme.example": {"partners": {"globex.example": {"state": "suspended", "pools": "*", "features": "*"}}}}
	_question := {"tenant": {"name": "acme.example"}, "subject": fixtures.ann, "target": fixtures.gus, "agreements": fixtures.both_records}
	agreements.pair == false with data.config as _settings with input as _question
	agreements.grants("messages") == false with data.config as _settings with input as _question
}

test_partner_settings_have_a_direction if {
	_settings := {"acme.example": {"partners": {"globex.example": {"direction": "outbound", "pools": "*", "features": "*"}}}}
	agreements.pair with data.config as _settings with input as {
		"tenant": {"name": "acme.example"}, "subject": fixtures.ann, "target": fixtures.gus, "agreements": fixtures.both_records,
	}
	agreements.pair == false with data.config as _settings with input as {
		"tenant": {"name": "acme.example"}, "subject": fixtures.gus, "target": fixtures.ann, "agreements": fixtures.both_records,
	}
}

_grants(feature, records) := answer if {
	answer := agreements.grants(feature) with data.config as {} with input as {
		"tenant": {"name": "acme.example"}, "subject": fixtures.ann, "target": fixtures.gus, "agreements": records,
	}
}

test_features_need_every_record if {
	only := _scoped({"direction": "both", "pools": "*", "features": ["messages"]})
	_grants("messages", {"outgoing": only, "incoming": fixtures.record}) == true
	_grants("media", {"outgoing": only, "incoming": fixtures.record}) == false
	_grants("media", {"outgoing": fixtures.record, "incoming": only}) == false
	_grants("messages", {}) == false
}

test_empty_and_missing_features_grant_nothing if {
	every scope in [{"direction": "both", "pools": "*", "features": []}, {"direction": "both", "pools": "*"}] {
		record := object.union(object.remove(fixtures.record, ["scope"]), {"scope": scope})
		_grants("messages", {"outgoing": record}) == false
	}
}

test_same_tenant_grants_everything if {
	agreements.grants("media") with data.config as {} with input as {
		"tenant": {"name": "acme.example"}, "subject": fixtures.ann, "target": fixtures.sam,
	}
}

test_the_tenant_of_the_room_leaves_a_foreign_pair_to_them if {
	agreements.grants("messages") with data.config as {} with input as {
		"tenant": {"name": "third.example"}, "subject": fixtures.ann, "target": fixtures.gus, "agreements": fixtures.both_records,
	}
}

_server(name, record, feature) := answer if {
	answer := agreements.server_grants(feature) with data.config as {} with input as {
		"tenant": {"name": "acme.example"}, "server": {"name": name, "agreement": record},
	}
}

test_server if {
	_server("remote.example", fixtures.one_sided, "media") == true
	_server("remote.example", object.union(fixtures.one_sided, {"state": "suspended"}), "media") == false
	_server("remote.example", object.union(fixtures.one_sided, {"scope": {"features": ["messages"]}}), "media") == false
}

test_server_without_record if {
	agreements.server == false with data.config as {} with input as {"tenant": {"name": "acme.example"}, "server": {"name": "remote.example"}}
	agreements.server == false with data.config as {} with input as {"tenant": {"name": "acme.example"}}
	agreements.server == false with data.config as {} with input as {"tenant": {"name": "acme.example"}, "server": {"name": "", "agreement": fixtures.record}}
}

test_own_server_needs_no_record if {
	agreements.server with data.config as {} with input as {"tenant": {"name": "acme.example"}, "server": {"name": "acme.example"}}
}

test_elsewhere if {
	agreements.elsewhere == false with input as {"tenant": {"name": "acme.example"}, "subject": fixtures.ann}
	agreements.elsewhere with input as {"tenant": {"name": "acme.example"}, "subject": fixtures.gil}
	agreements.elsewhere with input as {"tenant": {"name": "acme.example"}, "subject": fixtures.ann, "server": {"name": "x.example"}}
}
