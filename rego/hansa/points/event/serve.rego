# METADATA
# title: Serve events to another server
# description: |
#   What another server asks for of a room: its events, its state, its members. That the server takes part in the room and
#   may see the event is judged by the room itself.
package hansa.points.event.serve

import data.hansa.agreements
import data.hansa.domains
import data.hansa.lib.verdict
import data.hansa.rooms
import data.hansa.subjects

decision := {"allow": true, "reasons": set(), "obligations": {}} if {
	{outcome | some outcome in _checks} == {true}
} else := verdict.denied(_checks)

_checks := {
	"subjects.server": subjects.server,
	"domains.server": domains.server,
	"agreements.server": agreements.server,
	"agreements.messages": agreements.server_grants("messages"),
	"rooms.federation": rooms.federation,
}
