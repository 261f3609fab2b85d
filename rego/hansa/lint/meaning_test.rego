package hansa.lint.meaning_test

import data.hansa.lint.meaning

test_problem_names_the_other_pool if {
	meaning.problems == {{"path": "acme.example/sales/contact", "message": "links pool legal, which does not link back"}} with data.config as {"acme.example": {
		"sales": {"contact": {"with": ["legal"]}},
		"legal": {"contact": "closed"},
	}}
}

test_settings_of_the_wrong_shape_do_not_disturb if {
	meaning.problems == set() with data.config as {"acme.example": {"sales": "x", "whitelist": null, "domains": 1, "partners": [], "bridges": {"irc": null}}}
}
