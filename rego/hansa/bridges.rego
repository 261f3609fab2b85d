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

# METADATA
# description: The subject is no bridge of this tenant, or its bridge may use this decision point.
default permitted := false

permitted if input.subject.kind in {"user", "bot", "server", "operator", "anonymous"}

permitted if {
	input.subject.kind in {"ghost", "bridge"}
	input.subject.tenant != input.tenant.name
}

permitted if {
	input.subject.kind in {"ghost", "bridge"}
	points := settings.tenant.bridges[input.subject.bridge.id].points
	is_array(points)
	input.point in points
}

# METADATA
# description: Neither is a ghost of this tenant, or the ghost's bridge connects it with the other.
default contact := false

contact if {
	input.subject.kind in {"user", "bot", "server", "operator", "anonymous"}
	input.target.kind in {"user", "bot", "server", "operator", "anonymous"}
}

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
	user.kind in {"ghost", "bridge"}
	user.tenant == input.tenant.name
}

default _outside(_) := false

_outside(user) if user.kind in {"user", "bot", "server", "operator", "anonymous"}

_outside(user) if {
	user.kind in {"ghost", "bridge"}
	user.tenant != input.tenant.name
}

default _reaches(_, _) := false

_reaches(bridge, user) if {
	_outside(user)
	subjects.same_tenant
	settings.tenant.bridges[bridge].contact == "everyone"
}

_reaches(bridge, user) if {
	_outside(user)
	subjects.same_tenant
	sets.intersect(settings.tenant.bridges[bridge].contact, user.pools)
}

_reaches(bridge, user) if {
	_inside(user)
	user.bridge.id == bridge
}

_reaches(bridge, user) if {
	_outside(user)
	settings.tenant.bridges[bridge].partners == true
	input.subject.tenant != input.target.tenant
}
