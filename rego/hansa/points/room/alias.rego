# METADATA
# title: Room addresses
# description: |
#   Without a server in the input an address is given or taken away; with one it is looked up, there or for it.
package hansa.points.room.alias

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

_checks := _change if _look_up == false

_checks := _answer if _look_up == true

default _look_up := false

_look_up if input.server.name != ""

_change := {
	"subjects.subject": subjects.subject,
	"subjects.own_tenant": subjects.own_tenant,
	"whitelist.subject": whitelist.subject,
	"bridges.permitted": bridges.permitted,
	"rooms.alias": rooms.alias,
}

_answer := {
	"subjects.subject": subjects.subject_or_server,
	"whitelist.subject": whitelist.subject,
	"bridges.permitted": bridges.permitted,
	"domains.server": domains.server,
	"agreements.server": agreements.server,
	"agreements.directory": agreements.server_grants("directory"),
}
