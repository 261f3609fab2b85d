# METADATA
# title: Leave a room
# description: Leaving, and refusing an invitation, always works.
package hansa.points.room.leave

import data.hansa.lib.verdict
import data.hansa.subjects

decision := {"allow": true, "reasons": set(), "obligations": {}} if {
	{outcome | some outcome in _checks} == {true}
} else := verdict.denied(_checks)

_checks := {
	"subjects.named": subjects.named,
}
