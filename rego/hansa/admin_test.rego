package hansa.admin_test

import data.hansa.admin
import data.hansa.fixtures

_ask(roles, action) := fixtures.ask("admin.action", {
	"subject": object.union(fixtures.ann, {"roles": roles}),
	"admin": {"action": action, "tenant": "acme.example"},
})

_tenant(rules) := {"acme.example": {"admin": rules}}

test_default_roles if {
	admin.action with input as _ask(["admin"], "user.lock") with data.config as {}
	admin.action with input as _ask(["auditor"], "audit.search") with data.config as {}
	admin.action == false with input as _ask(["auditor"], "user.lock") with data.config as {}
	admin.action == false with input as _ask(["helpdesk"], "user.lock") with data.config as {}
	admin.action == false with input as _ask([], "user.lock") with data.config as {}
}

test_roles_of_the_tenant_replace_the_defaults if {
	rules := _tenant({"roles": {"helpdesk": ["user.lock", "user.passwd"]}})
	admin.action with input as _ask(["helpdesk"], "user.lock") with data.config as rules
	admin.action == false with input as _ask(["helpdesk"], "user.add") with data.config as rules
	admin.action == false with input as _ask(["admin"], "user.lock") with data.config as rules
}

test_empty_roles_are_nobody if {
	admin.action == false with input as _ask(["admin"], "user.lock") with data.config as _tenant({"roles": {}})
	admin.action == false with input as _ask(["admin"], "user.lock") with data.config as _tenant({"roles": {"admin": []}})
}

test_people_without_roles if {
	admin.action == false with input as fixtures.ask("admin.action", {
		"subject": object.remove(fixtures.ann, ["roles"]),
		"admin": {"action": "user.lock", "tenant": "acme.example"},
	})
		with data.config as {}
}

test_ghosts_have_no_roles if {
	question := fixtures.ask("admin.action", {"subject": object.union(fixtures.ghost, {"roles": ["admin"]}), "admin": {"action": "user.lock"}})
	admin.action == false with input as question with data.config as {}
}

test_nameless_action if admin.action == false with input as _ask(["admin"], "") with data.config as {}

test_scope if {
	admin.scope with input as _ask(["admin"], "user.lock")
	admin.scope == false with input as object.union(_ask(["admin"], "user.lock"), {"admin": {"tenant": "globex.example"}})
	admin.scope == false with input as object.union(_ask(["admin"], "user.lock"), {"tenant": {"name": "globex.example"}, "admin": {"tenant": "globex.example"}})
	admin.scope == false with input as object.remove(_ask(["admin"], "user.lock"), ["admin"])
}

test_remote_people_never_administer if {
	question := fixtures.ask("admin.action", {
		"subject": object.union(fixtures.rem, {"roles": ["admin"], "tenant": "acme.example"}),
		"admin": {"action": "user.lock", "tenant": "acme.example"},
	})
	admin.scope == false with input as question
}

test_operator if {
	question := fixtures.ask("admin.action", {"subject": {"kind": "operator"}, "admin": {"action": "user.add", "tenant": "globex.example"}})
	admin.action with input as question with data.config as {}
	admin.scope with input as question with data.config as {}
}

_approved(action, parts) := answer if {
	question := _ask(["admin"], action)
	answer := admin.approved with data.config as _tenant({"approval": ["user.wipe"]})
		with input as object.union(question, {"admin": object.union(question.admin, parts)})
}

test_approval if {
	_approved("user.lock", {}) == true
	_approved("user.wipe", {}) == false
	_approved("user.wipe", {"reason": "left", "approver": "@boss:acme.example"}) == true
	_approved("user.wipe", {"reason": "", "approver": "@boss:acme.example"}) == false
	_approved("user.wipe", {"reason": "left"}) == false
}

test_nobody_approves_the_own_action if _approved("user.wipe", {"reason": "left", "approver": "@ann:acme.example"}) == false

test_break_glass_needs_approval_by_default if {
	admin.approved == false with input as _ask(["admin"], "break_glass.join") with data.config as {}
	admin.approved with input as _ask(["admin"], "user.lock") with data.config as {}
}

test_the_operator_adds_approvals if {
	admin.approved == false with input as _ask(["admin"], "user.lock") with data.config as {"operator": {"admin": {"approval": ["user.lock"]}}}
}
