# METADATA
# title: Requests of another server
# description: |
#   May the server ask the tenant anything at all? Asked at the door, before its keys are looked up, and of the servers in
#   rooms. The obligations say how much of their past rooms may show that hold the server; of a refusal, what becomes of
#   our people in them.
package hansa.points.federation.inbound

import data.hansa.agreements
import data.hansa.domains
import data.hansa.lib.verdict
import data.hansa.rooms

decision := {"allow": true, "reasons": set(), "obligations": rooms.server_obligations} if {
	{outcome | some outcome in _checks} == {true}
} else := object.union(verdict.denied(_checks), {"obligations": rooms.stranger_obligations})

_checks := {
	"domains.server": domains.server,
	"agreements.server": agreements.server_or_parting,
}
