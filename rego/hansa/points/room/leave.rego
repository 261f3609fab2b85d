# METADATA
# title: Leave a room
# description: Leaving, and refusing an invitation, always works.
package hansa.points.room.leave

import data.hansa.lib.verdict
import data.hansa.subjects

decision := verdict.of(_checks)

_checks := {
	"subjects.named": subjects.named,
}
