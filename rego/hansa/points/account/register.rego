# METADATA
# title: Register an account
# description: The subject asks, the target is the account to be.
package hansa.points.account.register

import data.hansa.bridges
import data.hansa.lib.verdict
import data.hansa.subjects
import data.hansa.whitelist

decision := {"allow": true, "reasons": set(), "obligations": {}} if {
	{outcome | some outcome in _checks} == {true}
} else := verdict.denied(_checks)

_checks := {
	"subjects.registrant": subjects.registrant,
	"subjects.target": subjects.target,
	"subjects.target_own": subjects.target_own,
	"whitelist.newcomer": whitelist.newcomer,
	"bridges.permitted": bridges.permitted,
}
