# METADATA
# title: Change the own profile
# description: A field of the own profile, named in the input.
package hansa.points.profile.write

import data.hansa.accounts
import data.hansa.bridges
import data.hansa.lib.verdict
import data.hansa.profiles
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
	"accounts.self": accounts.self,
	"profiles.writable": profiles.writable,
}
