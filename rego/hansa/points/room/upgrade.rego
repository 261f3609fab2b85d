# METADATA
# title: Upgrade a room
# description: The upgraded room takes its members along, each judged by room.invite or room.join.
package hansa.points.room.upgrade

import data.hansa.bridges
import data.hansa.contact
import data.hansa.lib.verdict
import data.hansa.rooms
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
	"rooms.create": rooms.create,
	"contact.room": contact.room_in_use,
	"rooms.version": rooms.version,
}
