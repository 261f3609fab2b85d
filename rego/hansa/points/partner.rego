# METADATA
# title: Partner
# description: May the tenant and the server talk at all? Asked at the door and before a connection is opened.
package hansa.points.partner

import data.hansa.agreements
import data.hansa.domains
import data.hansa.lib.verdict

decision := {"allow": true, "reasons": set(), "obligations": {}} if {
	{outcome | some outcome in _checks} == {true}
} else := verdict.denied(_checks)

_checks := {
	"domains.server": domains.server,
	"agreements.server": agreements.server,
}
