# METADATA
# title: Verdict
# description: |
#   Turns the named checks of a decision point into its decision. Allowed is what passed every check: a check that is
#   missing, false or anything but true denies, and so does an empty set of checks. Each failed check is one reason.
package hansa.lib.verdict

import data.hansa.messages

# METADATA
# description: The decision of a point from its checks, an object of check name and outcome.
of(checks) := binding(checks, {})

# METADATA
# description: The same with obligations, things that must also happen when the action is allowed.
binding(checks, obligations) := {
	"allow": _all_passed(checks),
	"reasons": {_reason(name) | some name, outcome in checks; outcome != true},
	"obligations": obligations,
}

default _all_passed(_) := false

_all_passed(checks) if {
	count(checks) > 0
	every outcome in checks { outcome == true }
}

_reason(name) := {"code": text.code, "message": text.message, "rule": concat("", ["hansa.", name])} if {
	text := object.get(messages.catalogue, name, messages.unknown)
}
