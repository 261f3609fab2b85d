# METADATA
# title: Domains
# description: |
#   Which other servers a tenant has to do with at all: section `domains` of the tenant and of the operator, each with
#   lists `allow` and `deny`. Being permitted here is necessary and never enough; an agreement is needed as well.
package hansa.domains

import data.hansa.lib.domains as names
import data.hansa.lib.settings

default subject := false

subject if input.subject.tenant == input.tenant.name

subject if permitted(input.subject.tenant)

default target := false

target if input.target.tenant == input.tenant.name

target if permitted(input.target.tenant)

default server := false

server if permitted(input.server.name)

# METADATA
# description: Every server that takes part in the room is permitted.
default room := false

room if input.room.servers == [input.tenant.name]

room if {
	is_array(input.room.servers)
	every name in input.room.servers { permitted(name) }
}

# METADATA
# description: The name is the tenant's own, or both the tenant and the operator permit it.
default permitted(_) := false

permitted(name) if {
	not data.config[input.tenant.name].domains
	not data.config.operator.domains
	name != ""
}

permitted(name) if names.normal(name) == input.tenant.name

permitted(name) if {
	names.permits(object.get(settings.tenant, "domains", {}), name)
	names.permits(object.get(settings.operator, "domains", {}), name)
}
