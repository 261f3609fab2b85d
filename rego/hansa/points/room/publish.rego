# METADATA
# title: List a room in the directory
# description: The entry into the list; who sees it there is judged by directory.rooms.
package hansa.points.room.publish

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
	"subjects.own_tenant": subjects.own_tenant,
	"rooms.publish": rooms.publish,
}
