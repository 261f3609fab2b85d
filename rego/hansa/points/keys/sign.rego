# METADATA
# title: Sign keys
# description: A signature on a key of the target, or on an own one.
package hansa.points.keys.sign

import data.hansa.agreements
import data.hansa.bridges
import data.hansa.contact
import data.hansa.lib.verdict
import data.hansa.subjects
import data.hansa.whitelist

decision := {"allow": true, "reasons": set(), "obligations": {}} if {
	{outcome | some outcome in _checks} == {true}
} else := verdict.denied(_checks)

_checks := {
	"subjects.subject": subjects.subject,
	"subjects.target": subjects.target,
	"whitelist.subject": whitelist.subject,
	"whitelist.target": whitelist.target,
	"bridges.permitted": bridges.permitted,
	"contact.either": contact.either,
	"agreements.messages": agreements.grants("messages"),
}
