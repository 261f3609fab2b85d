# METADATA
# title: Change the policy
# description: Changes of rules, of data and of how failures are handled.
package hansa.points.policy.change

import data.hansa.admin
import data.hansa.lib.verdict
import data.hansa.subjects
import data.hansa.whitelist

decision := {"allow": true, "reasons": set(), "obligations": {"record": "full"}} if {
	{outcome | some outcome in _checks} == {true}
} else := verdict.denied(_checks)

_checks := {
	"subjects.subject": subjects.subject,
	"whitelist.subject": whitelist.subject,
	"admin.action": admin.action,
	"admin.scope": admin.scope,
	"admin.approved": admin.approved,
}
