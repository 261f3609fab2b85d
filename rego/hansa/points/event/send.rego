# METADATA
# title: Send an event
# description: Everybody in the room is within reach, and the content follows the rules.
package hansa.points.event.send

import data.hansa.bridges
import data.hansa.contact
import data.hansa.content
import data.hansa.lib.verdict
import data.hansa.subjects
import data.hansa.whitelist

decision := {"allow": true, "reasons": set(), "obligations": content.event_obligations} if {
	{outcome | some outcome in _checks} == {true}
} else := verdict.denied(_checks)

_checks := {
	"subjects.subject": subjects.subject,
	"subjects.own_tenant": subjects.own_tenant,
	"whitelist.subject": whitelist.subject,
	"bridges.permitted": bridges.permitted,
	"contact.room": contact.room_in_use,
	"content.type": content.type,
	"content.msgtype": content.msgtype,
	"content.mimetype": content.mimetype,
	"content.encryption": content.encryption,
}
