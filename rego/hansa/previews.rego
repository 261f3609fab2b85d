# METADATA
# title: Previews
# description: |
#   Whether the server may fetch an address to show a preview. Section `previews`: off unless `enabled: true`; `allow` and
#   `deny` list hosts. The operator's section narrows it.
package hansa.previews

import data.hansa.lib.domains
import data.hansa.lib.settings

default permitted := false

permitted if {
	settings.tenant.previews.enabled == true
	object.get(settings.operator, ["previews", "enabled"], true) == true
	domains.permits(settings.tenant.previews, input.server.name)
	domains.permits(object.get(settings.operator, "previews", {}), input.server.name)
}
