# METADATA
# title: Join a room
# description: The newcomer may be with everybody in the room, and every server in it is permitted.
package hansa.points.room.join

import data.hansa.agreements
import data.hansa.bridges
import data.hansa.contact
import data.hansa.domains
import data.hansa.lib.verdict
import data.hansa.rooms
import data.hansa.subjects
import data.hansa.whitelist

decision := {"allow": true, "reasons": set(), "obligations": rooms.partner_obligations} if {
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
	"rooms.size": rooms.size,
}
