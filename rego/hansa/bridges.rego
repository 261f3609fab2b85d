# METADATA
# title: Bridges
# description: |
#   What a bridge and its ghosts may do, section `bridges` with one entry per bridge: `points` lists the decision points,
#   `contact` the pools whose people its ghosts may meet ("everyone" for all). A bridge without an entry may do nothing.
#   Bridges of other tenants are ordinary users of those tenants.
package hansa.bridges

import data.hansa.lib.sets
import data.hansa.lib.settings
import data.hansa.subjects

_bridged_kinds := {"ghost", "bridge"}

_unbridged_kinds := {"user", "bot", "server", "operator", "anonymous"}

# METADATA
# description: The subject is no bridge of this tenant, or its bridge may use this decision point.
default permitted := false

permitted if input.subject.kind in _unbridged_kinds

permitted if {
	input.subject.kind in _bridged_kinds
	input.subject.tenant != input.tenant.name
}

permitted if {
	input.subject.kind in _bridged_kinds
	points := settings.section("bridges")[input.subject.bridge.id].points
	is_array(points)
	input.point in points
}

# METADATA
# description: Neither is a ghost of this tenant, or the ghost's bridge connects it with the other.
default contact := false

contact if {
	_outside(input.subject)
	_outside(input.target)
}

contact if {
	_inside(input.subject)
	_reaches(input.subject.bridge.id, input.target)
}

contact if {
	_inside(input.target)
	_reaches(input.target.bridge.id, input.subject)
}

default _inside(_) := false

_inside(user) if {
	user.kind in _bridged_kinds
	user.tenant == input.tenant.name
}

default _outside(_) := false

_outside(user) if user.kind in _unbridged_kinds

_outside(user) if {
	user.kind in _bridged_kinds
	user.tenant != input.tenant.name
}

default _reaches(_, _) := false

_reaches(bridge, user) if {
	_outside(user)
	subjects.same_tenant
	settings.section("bridges")[bridge].contact == "everyone"
}

_reaches(bridge, user) if {
	_outside(user)
	subjects.same_tenant
	sets.intersect(settings.section("bridges")[bridge].contact, user.pools)
}

_reaches(bridge, user) if {
	_inside(user)
	user.bridge.id == bridge
}

_reaches(bridge, user) if {
	_outside(user)
	settings.section("bridges")[bridge].partners == true
	input.subject.tenant != input.target.tenant
}
