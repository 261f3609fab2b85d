package hansa.subjects_test

import data.hansa.fixtures
import data.hansa.subjects

test_people_bots_and_bridges_are_subjects if {
	every kind in ["user", "bot", "ghost", "bridge"] {
		subjects.subject with input as {"tenant": {"name": "acme.example"}, "subject": {"kind": kind, "tenant": "acme.example"}}
		subjects.target with input as {"target": {"kind": kind, "tenant": "acme.example"}}
	}
}

test_other_kinds_are_not if {
	every kind in ["guest", "server", "anonymous", "", null, "USER"] {
		subjects.subject == false with input as {"tenant": {"name": "acme.example"}, "subject": {"kind": kind, "tenant": "acme.example"}}
		subjects.target == false with input as {"target": {"kind": kind, "tenant": "acme.example"}}
	}
}

test_a_subject_has_a_tenant if {
	subjects.subject == false with input as {"subject": {"kind": "user", "tenant": ""}}
	subjects.subject == false with input as {"subject": {"kind": "user"}}
}

test_nobody_asks_without_a_tenant_to_ask if {
	subjects.subject == false with input as {"subject": fixtures.ann}
	subjects.subject_or_server == false with input as {"subject": fixtures.remote_server}
}

test_the_operator_acts_and_is_never_a_target if {
	subjects.subject with input as {"subject": {"kind": "operator"}}
	subjects.own_tenant with input as {"subject": {"kind": "operator"}, "tenant": {"name": "acme.example"}}
	subjects.target == false with input as {"target": {"kind": "operator", "tenant": "acme.example"}}
}

test_servers_speak_where_they_may if {
	subjects.server with input as {"subject": fixtures.remote_server}
	subjects.subject_or_server with input as {"tenant": {"name": "acme.example"}, "subject": fixtures.remote_server}
	subjects.subject == false with input as {"subject": fixtures.remote_server}
}

test_strangers_may_only_register if {
	subjects.registrant with input as {"subject": {"kind": "anonymous"}}
	subjects.subject == false with input as {"subject": {"kind": "anonymous", "tenant": "acme.example"}}
}

test_own_tenant if {
	subjects.own_tenant with input as {"subject": fixtures.ann, "tenant": {"name": "acme.example"}}
	subjects.own_tenant == false with input as {"subject": fixtures.ann, "tenant": {"name": "globex.example"}}
	subjects.own_tenant == false with input as {}
}

test_self if {
	subjects.self with input as {"contact": {"self": true}}
	subjects.self == false with input as {"contact": {"self": false}}
	subjects.self == false with input as {"contact": {"self": "true"}}
	subjects.self == false with input as {"subject": fixtures.ann, "target": fixtures.ann}
}

test_same_tenant if {
	subjects.same_tenant with input as {"subject": fixtures.ann, "target": fixtures.sam}
	subjects.same_tenant == false with input as {"subject": fixtures.ann, "target": fixtures.gil}
	subjects.same_tenant == false with input as {"subject": {"tenant": ""}, "target": {"tenant": ""}}
}

test_target_own if {
	subjects.target_own with input as {"target": fixtures.ann, "tenant": {"name": "acme.example"}}
	subjects.target_own == false with input as {"target": fixtures.gil, "tenant": {"name": "acme.example"}}
}

test_named if {
	subjects.named with input as {"subject": {"id": "@x:y"}}
	subjects.named == false with input as {"subject": {"id": ""}}
	subjects.named == false with input as {}
}
