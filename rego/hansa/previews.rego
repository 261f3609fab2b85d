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
	settings.section("previews").enabled == true
	object.get(settings.operator, ["previews", "enabled"], true) == true
	every scope in settings.both { domains.permits(object.get(scope, "previews", {}), input.server.name) }
}
