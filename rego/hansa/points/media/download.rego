# METADATA
# title: Download a file
# description: The tenant's own files for its own people, else by an agreement that covers files.
package hansa.points.media.download

import data.hansa.agreements
import data.hansa.bridges
import data.hansa.contact
import data.hansa.domains
import data.hansa.lib.verdict
import data.hansa.media
import data.hansa.subjects
import data.hansa.whitelist

decision := {"allow": true, "reasons": set(), "obligations": {}} if {
	{outcome | some outcome in _checks} == {true}
} else := verdict.denied(_checks)

_checks := _own if media.own == true

_checks := object.union(_own, _foreign) if media.own == false

_own := {
	"subjects.subject": subjects.subject_or_server,
	"whitelist.subject": whitelist.subject,
	"bridges.permitted": bridges.permitted,
	"media.origin": media.origin,
	"contact.uploader": contact.uploader,
}

_foreign := {
	"domains.server": domains.server,
	"agreements.server": agreements.server,
	"agreements.media": agreements.server_grants("media"),
}
