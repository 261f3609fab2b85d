# METADATA
# title: Create a room
# description: The room as it is to be; people invited at the same time are judged by room.invite one by one.
package hansa.points.room.create

import data.hansa.bridges
import data.hansa.content
import data.hansa.lib.verdict
import data.hansa.rooms
import data.hansa.subjects
import data.hansa.whitelist

decision := {"allow": true, "reasons": set(), "obligations": object.union(rooms.obligations, content.room_obligations)} if {
	{outcome | some outcome in _checks} == {true}
} else := verdict.denied(_checks)

_checks := {
	"subjects.subject": subjects.subject,
	"subjects.own_tenant": subjects.own_tenant,
	"whitelist.subject": whitelist.subject,
	"bridges.permitted": bridges.permitted,
	"rooms.create": rooms.create,
	"rooms.public": rooms.public,
	"rooms.join_rule": rooms.join_rule,
	"rooms.history": rooms.history,
	"rooms.version": rooms.version,
	"rooms.type": rooms.type,
	"content.encryption": content.room_encryption,
}
