# METADATA
# title: Find a room
# description: Whether the room may appear in a list of rooms, for one of the tenant's people or for another domain.
package hansa.points.directory.rooms

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

_checks := _own if agreements.elsewhere == false

_checks := object.union(_own, _foreign) if agreements.elsewhere == true

_own := {
	"subjects.subject": subjects.subject_or_server,
	"whitelist.subject": whitelist.subject,
	"bridges.permitted": bridges.permitted,
	"contact.room": contact.room_or_server,
	"rooms.federation": rooms.federation,
}

_foreign := {
	"domains.server": domains.server,
	"agreements.server": agreements.server,
	"agreements.directory": agreements.server_grants("directory"),
}
