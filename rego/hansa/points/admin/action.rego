# METADATA
# title: Administer
# description: |
#   Every call of the admin API. What changes something is kept in the decision log, and is refused when it cannot be kept.
package hansa.points.admin.action

import data.hansa.admin
import data.hansa.lib.verdict
import data.hansa.subjects
import data.hansa.whitelist

decision := {"allow": true, "reasons": set(), "obligations": obligations} if {
	{outcome | some outcome in _checks} == {true}
} else := verdict.denied(_checks)

_checks := {
	"subjects.subject": subjects.subject,
	"whitelist.subject": whitelist.subject,
	"admin.action": admin.action,
	"admin.scope": admin.scope,
	"admin.approved": admin.approved,
}

# METADATA
# description: What only looks at something is not kept.
default obligations := {"record": "full"}

obligations := {} if {
	some look in {".list", ".show", ".status", ".explain"}
	endswith(input.admin.action, look)
}
