# METADATA
# title: Redact an event
# description: Redacting stays possible whatever the content.
package hansa.points.event.redact

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
	"subjects.own_tenant": subjects.own_tenant,
	"whitelist.subject": whitelist.subject,
	"bridges.permitted": bridges.permitted,
	"contact.room": contact.room_in_use,
}
