# METADATA
# title: Remove people from a room
# description: Kick, ban and unban. People out of reach can be removed as well, so contact is not asked.
package hansa.points.room.moderate

import data.hansa.bridges
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
	"rooms.removal": rooms.removal,
}
