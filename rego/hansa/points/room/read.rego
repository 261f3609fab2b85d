# METADATA
# title: Read a room
# description: |
#   Members read what the room shows them; others only rooms in which they could be with everybody; servers by agreement.
package hansa.points.room.read

import data.hansa.agreements
import data.hansa.bridges
import data.hansa.domains
import data.hansa.lib.verdict
import data.hansa.rooms
import data.hansa.subjects
import data.hansa.whitelist

decision := {"allow": true, "reasons": set(), "obligations": {}} if {
	{outcome | some outcome in _checks} == {true}
} else := verdict.denied(_checks)

_checks := _people if subjects.server == false

_checks := _servers if subjects.server == true

_people := {
	"subjects.subject": subjects.subject,
	"whitelist.subject": whitelist.subject,
	"bridges.permitted": bridges.permitted,
	"rooms.readable": rooms.readable,
}

_servers := {
	"domains.server": domains.server,
	"agreements.server": agreements.server,
	"agreements.messages": agreements.server_grants("messages"),
}
