# METADATA
# title: Log in
# description: Also asked when a token is refreshed.
package hansa.points.account.login

import data.hansa.bridges
import data.hansa.lib.verdict
import data.hansa.sessions
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
	"sessions.people": sessions.people,
	"sessions.network": sessions.network,
	"sessions.hours": sessions.hours,
}
