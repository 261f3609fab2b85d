# METADATA
# title: Send a receipt
# description: Into a room, or to one recipient or server of it.
package hansa.points.receipt.send

import data.hansa.agreements
import data.hansa.bridges
import data.hansa.contact
import data.hansa.domains
import data.hansa.lib.verdict
import data.hansa.subjects
import data.hansa.whitelist

decision := {"allow": true, "reasons": set(), "obligations": {}} if {
	{outcome | some outcome in _checks} == {true}
} else := verdict.denied(_checks)

_checks := _own if agreements.elsewhere == false

_checks := object.union(_own, _foreign) if agreements.elsewhere == true

_own := {
	"subjects.subject": subjects.subject,
	"whitelist.subject": whitelist.subject,
	"bridges.permitted": bridges.permitted,
	"contact.recipient": contact.recipient,
}

_foreign := {
	"domains.server": domains.server,
	"agreements.server": agreements.server,
	"agreements.messages": agreements.server_grants("messages"),
}
