# METADATA
# title: Invite into a room
# description: The invited person must be within reach of the subject and of everybody in the room.
package hansa.points.room.invite

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
	"subjects.target": subjects.target,
	"whitelist.subject": whitelist.subject,
	"whitelist.target": whitelist.target,
	"bridges.permitted": bridges.permitted,
	"contact.pair": contact.pair,
	"contact.room": contact.room,
	"agreements.messages": agreements.grants("messages"),
	"domains.target": domains.target,
	"domains.room": domains.room,
	"rooms.invite": rooms.invite,
	"rooms.federation": rooms.federation,
	"rooms.partner_history": rooms.partner_history,
	"rooms.size": rooms.size,
}
