# METADATA
# title: Receive an event from another domain
# description: |
#   Judged by the domain of the sender, whoever delivers it. What is refused here is withheld, not rejected.
package hansa.points.event.receive

import data.hansa.agreements
import data.hansa.bridges
import data.hansa.contact
import data.hansa.content
import data.hansa.domains
import data.hansa.lib.verdict
import data.hansa.subjects
import data.hansa.whitelist

decision := {"allow": true, "reasons": set(), "obligations": content.event_obligations} if {
	{outcome | some outcome in _checks} == {true}
} else := verdict.denied(_checks)

_checks := {
	"subjects.subject": subjects.subject,
	"whitelist.subject": whitelist.subject,
	"bridges.permitted": bridges.permitted,
	"domains.server": domains.server,
	"agreements.server": agreements.server,
	"agreements.messages": agreements.server_grants("messages"),
	"contact.room": contact.room_or_order,
	"content.type": content.type,
	"content.msgtype": content.msgtype,
	"content.mimetype": content.mimetype,
}
