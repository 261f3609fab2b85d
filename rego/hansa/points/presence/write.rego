# METADATA
# title: Set presence
# description: Who sees it is judged by presence.read.
package hansa.points.presence.write

import data.hansa.bridges
import data.hansa.lib.verdict
import data.hansa.subjects
import data.hansa.whitelist

decision := {"allow": true, "reasons": set(), "obligations": {}} if {
	{outcome | some outcome in _checks} == {true}
} else := verdict.denied(_checks)

_checks := {
	"subjects.subject": subjects.subject,
	"subjects.own_tenant": subjects.own_tenant,
	"whitelist.subject": whitelist.subject,
	"bridges.permitted": bridges.permitted,
}
