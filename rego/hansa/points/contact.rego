# METADATA
# title: Contact
# description: |
#   May the subject reach the target? Asked once per pair of audience classes and kept in the contact matrix, so it reads what makes a class and nothing else.
#   A server that asks for its users is judged like one of them without pools.
package hansa.points.contact

import data.hansa.agreements
import data.hansa.bridges
import data.hansa.domains
import data.hansa.lib.verdict
import data.hansa.pools
import data.hansa.subjects
import data.hansa.whitelist

decision := {"allow": true, "reasons": set(), "obligations": {}} if {
	{outcome | some outcome in _checks} == {true}
} else := verdict.denied(_checks)

_checks := {
	"subjects.subject": subjects.subject_or_server,
	"subjects.target": subjects.target_or_server,
	"whitelist.subject": whitelist.subject,
	"whitelist.target": whitelist.target,
	"domains.subject": domains.subject,
	"domains.target": domains.target,
	"pools.pair": pools.pair,
	"agreements.pair": agreements.pair,
	"bridges.contact": bridges.contact,
}
