# METADATA
# title: Knock on a room
# description: |
#   Judged as joining is: a knock shows the newcomer to everybody in the room.
package hansa.points.room.knock

import data.hansa.agreements
import data.hansa.bridges
import data.hansa.contact
import data.hansa.domains
import data.hansa.lib.verdict
import data.hansa.rooms
import data.hansa.subjects
import data.hansa.whitelist

decision := {"allow": true, "reasons": set(), "obligations": {}} if {
	{outcome | some outcome in _checks} == {true}
} else := verdict.denied(_checks)

_checks := {
	"subjects.subject": subjects.subject,
	"whitelist.subject": whitelist.subject,
	"bridges.permitted": bridges.permitted,
	"agreements.messages": agreements.subject_grants("messages"),
	"contact.room": contact.room,
	"domains.room": domains.room,
	"rooms.federation": rooms.federation,
	"rooms.partner_history": rooms.partner_history,
}
