# METADATA
# title: Requests of another server
# description: May the server ask the tenant anything at all? Asked at the door, before its keys are looked up.
package hansa.points.federation.inbound

import data.hansa.agreements
import data.hansa.domains
import data.hansa.lib.verdict

decision := {"allow": true, "reasons": set(), "obligations": {}} if {
	{outcome | some outcome in _checks} == {true}
} else := verdict.denied(_checks)

_checks := {
	"domains.server": domains.server,
	"agreements.server": agreements.server_or_parting,
}
