# METADATA
# title: Look up device keys
# description: The devices and keys of the target are about to be shown to the subject.
package hansa.points.keys.query

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
	"subjects.subject": subjects.subject_or_server,
	"subjects.target": subjects.target,
	"whitelist.subject": whitelist.subject,
	"whitelist.target": whitelist.target,
	"bridges.permitted": bridges.permitted,
	"contact.either": contact.either,
	"agreements.messages": agreements.grants("messages"),
}
