package hansa.previews_test

import data.hansa.fixtures
import data.hansa.previews

_ask := fixtures.ask("url.preview", {"subject": fixtures.ann, "server": {"name": "news.example"}})

_tenant(rules) := {"acme.example": {"previews": rules}}

test_off_by_default if {
	previews.permitted == false with input as _ask with data.config as {}
	previews.permitted == false with input as _ask with data.config as _tenant({"allow": ["news.example"]})
}

test_enabled if {
	previews.permitted with input as _ask with data.config as _tenant({"enabled": true})
	previews.permitted with input as _ask with data.config as _tenant({"enabled": true, "allow": ["*.example", "news.example"]})
}

test_only_true_enables if {
	every odd in ["true", 1, null, {}] { previews.permitted == false with input as _ask with data.config as _tenant({"enabled": odd}) }
}

test_lists if {
	previews.permitted == false with input as _ask with data.config as _tenant({"enabled": true, "allow": []})
	previews.permitted == false with input as _ask with data.config as _tenant({"enabled": true, "deny": ["news.example"]})
}

test_the_operator_narrows if {
	previews.permitted == false with input as _ask
		with data.config as {"acme.example": {"previews": {"enabled": true}}, "operator": {"previews": {"enabled": false}}}
	previews.permitted == false with input as _ask
		with data.config as {"acme.example": {"previews": {"enabled": true}}, "operator": {"previews": {"deny": ["news.example"]}}}
}
