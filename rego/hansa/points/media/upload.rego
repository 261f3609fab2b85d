# METADATA
# title: Upload a file
# description: The type is the declared or the detected one.
package hansa.points.media.upload

import data.hansa.bridges
import data.hansa.content
import data.hansa.lib.verdict
import data.hansa.subjects
import data.hansa.whitelist

decision := {"allow": true, "reasons": set(), "obligations": content.upload_obligations} if {
	{outcome | some outcome in _checks} == {true}
} else := verdict.denied(_checks)

_checks := {
	"subjects.subject": subjects.subject,
	"subjects.own_tenant": subjects.own_tenant,
	"whitelist.subject": whitelist.subject,
	"bridges.permitted": bridges.permitted,
	"content.mimetype": content.upload_mimetype,
}
