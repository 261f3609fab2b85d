# METADATA
# title: Register a push gateway
# description: The gateway would learn when messages arrive.
package hansa.points.push.register

import data.hansa.bridges
import data.hansa.lib.verdict
import data.hansa.push
import data.hansa.subjects
import data.hansa.whitelist

decision := {"allow": true, "reasons": set(), "obligations": push.obligations} if {
	{outcome | some outcome in _checks} == {true}
} else := verdict.denied(_checks)

_checks := {
	"subjects.subject": subjects.subject,
	"subjects.own_tenant": subjects.own_tenant,
	"whitelist.subject": whitelist.subject,
	"bridges.permitted": bridges.permitted,
	"push.permitted": push.permitted,
}
