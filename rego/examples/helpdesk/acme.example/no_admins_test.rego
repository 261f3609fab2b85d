package tenants["acme.example"].admin.action_test

import data.hansa.points.admin.action as library
import data.tenants["acme.example"].admin.action

_ask(roles, name, target_roles) := {
	"point": "admin.action",
	"tenant": {"name": "acme.example", "timezone": "UTC"},
	"subject": {"kind": "user", "id": "@h:acme.example", "tenant": "acme.example", "local": true, "listed": true, "pools": [], "roles": roles},
	"target": {"id": "@t:acme.example", "roles": target_roles},
	"admin": {"action": name, "tenant": "acme.example"},
}

test_helpdesk_and_admins if count(action.deny) == 1 with input as _ask(["helpdesk"], "user.lock", ["admin"])

test_helpdesk_and_people if action.deny == set() with input as _ask(["helpdesk"], "user.lock", [])

test_admins_and_admins if action.deny == set() with input as _ask(["admin"], "user.lock", ["admin"])

_library(roles, name) := answer if {
	answer := library.decision.allow with input as _ask(roles, name, [])
}

# What admin.yaml does alone.
test_roles if {
	_library(["helpdesk"], "user.lock") == true
	_library(["helpdesk"], "user.add") == false
	_library(["auditor"], "audit.search") == true
	_library(["auditor"], "user.lock") == false
	_library(["admin"], "user.add") == true
	_library(["admin"], "user.wipe") == false
}
