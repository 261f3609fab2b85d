# METADATA
# title: Preview an address
# description: The server would fetch the address.
package hansa.points.url.preview

import data.hansa.bridges
import data.hansa.lib.verdict
import data.hansa.previews
import data.hansa.subjects
import data.hansa.whitelist

decision := {"allow": true, "reasons": set(), "obligations": {}} if {
	{outcome | some outcome in _checks} == {true}
} else := verdict.denied(_checks)

_checks := {
	"subjects.subject": subjects.subject,
	"subjects.own_tenant": subjects.own_tenant,
	"whitelist.subject": whitelist.subject,
	"bridges.permitted": bridges.permitted,
	"previews.permitted": previews.permitted,
}
