package hansa.lint.shape_test

import data.hansa.lint.shape

test_reserved_names if {
	shape.reserved == {
		"admin", "bridges", "content", "custom", "domains", "partners", "previews", "profiles", "push", "rooms",
		"sessions", "tenant", "whitelist",
	}
}

test_problem_names_path_and_kinds if {
	shape.problems == {{"path": "acme.example/sales/contcat", "message": "is not known; known are contact, groups, title, users"}} with data.config as {"acme.example": {"sales": {"contcat": "open"}}}
}
