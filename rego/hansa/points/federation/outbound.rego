# METADATA
# title: Requests to another server
# description: May the tenant ask the server anything at all? Asked before a name is resolved or a connection opened.
package hansa.points.federation.outbound

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
