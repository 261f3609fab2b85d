# METADATA
# title: Change an agreement
# description: Proposing, approving, suspending and ending agreements.
package hansa.points.partner.change

import data.hansa.admin
import data.hansa.domains
import data.hansa.lib.verdict
import data.hansa.subjects
import data.hansa.whitelist

decision := {"allow": true, "reasons": set(), "obligations": {"record": "full"}} if {
	{outcome | some outcome in _checks} == {true}
} else := verdict.denied(_checks)

_checks := {
	"subjects.subject": subjects.subject,
	"whitelist.subject": whitelist.subject,
	"domains.server": domains.server,
	"admin.action": admin.action,
	"admin.scope": admin.scope,
	"admin.approved": admin.approved,
}
