# METADATA
# title: Push
# description: |
#   Which push gateways may learn that a message has arrived. Section `push` of the tenant and of the operator: `gateways`
#   lists the hosts (absent: every host, empty: none); `content: true` lets message texts leave, else gateways get event
#   ids only.
package hansa.push

import data.hansa.lib.domains
import data.hansa.lib.settings

default permitted := false

permitted if {
	domains.any_match(object.get(settings.tenant, ["push", "gateways"], ["*"]), input.server.name)
	domains.any_match(object.get(settings.operator, ["push", "gateways"], ["*"]), input.server.name)
}

# METADATA
# description: Obligations for a pusher.
obligations := {"push_format": "event_id_only" | _ids_only}

default _ids_only := true

_ids_only := false if {
	settings.tenant.push.content == true
	object.get(settings.operator, ["push", "content"], true) == true
}
