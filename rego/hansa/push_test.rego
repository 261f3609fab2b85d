package hansa.push_test

import data.hansa.fixtures
import data.hansa.push

_ask := fixtures.ask("push.register", {"subject": fixtures.ann, "server": {"name": "push.example"}})

_tenant(rules) := {"acme.example": {"push": rules}}

test_any_gateway_by_default if push.permitted with input as _ask with data.config as {}

test_listed_gateways if {
	push.permitted with input as _ask with data.config as _tenant({"gateways": ["push.example"]})
	push.permitted == false with input as _ask with data.config as _tenant({"gateways": ["other.example"]})
	push.permitted == false with input as _ask with data.config as _tenant({"gateways": []})
	push.permitted == false with input as _ask with data.config as {"operator": {"push": {"gateways": []}}}
}

test_unnamed_gateway if push.permitted == false with input as fixtures.ask("push.register", {}) with data.config as {}

test_gateways_get_event_ids_only if {
	push.obligations == {"push_format": "event_id_only"} with input as _ask with data.config as {}
	push.obligations == {"push_format": "event_id_only"} with input as _ask with data.config as _tenant({"content": "true"})
}

test_content_where_both_agree if {
	push.obligations == {} with input as _ask with data.config as _tenant({"content": true})
	push.obligations == {"push_format": "event_id_only"} with input as _ask
		with data.config as {"acme.example": {"push": {"content": true}}, "operator": {"push": {"content": false}}}
}
