# METADATA
# title: Administer
# description: Every call of the admin API.
package hansa.points.admin.action

import data.hansa.admin
import data.hansa.lib.verdict
import data.hansa.subjects
import data.hansa.whitelist

decision := {"allow": true, "reasons": set(), "obligations": {}} if {
	{outcome | some outcome in _checks} == {true}
} else := verdict.denied(_checks)

_checks := {
	"subjects.subject": subjects.subject,
	"whitelist.subject": whitelist.subject,
	"admin.action": admin.action,
	"admin.scope": admin.scope,
	"admin.approved": admin.approved,
}
