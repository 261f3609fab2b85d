# METADATA
# title: Change the state of a room
# description: Memberships have their own points.
package hansa.points.room.state

import data.hansa.bridges
import data.hansa.contact
import data.hansa.content
import data.hansa.lib.verdict
import data.hansa.rooms
import data.hansa.subjects
import data.hansa.whitelist

decision := {"allow": true, "reasons": set(), "obligations": content.event_obligations} if {
	{outcome | some outcome in _checks} == {true}
} else := verdict.denied(_checks)

_checks := {
	"subjects.subject": subjects.subject,
	"subjects.own_tenant": subjects.own_tenant,
	"whitelist.subject": whitelist.subject,
	"bridges.permitted": bridges.permitted,
	"contact.room": contact.room_in_order,
	"content.type": content.type,
	"content.encryption": content.encryption,
	"rooms.public": rooms.public,
	"rooms.join_rule": rooms.join_rule,
	"rooms.history": rooms.history,
	"rooms.partner_history": rooms.partner_history_kept,
}
