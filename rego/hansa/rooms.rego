# METADATA
# title: Rooms
# description: |
#   Who may create, open, list and name rooms, what rooms may look like and how large they grow: section `rooms` of the
#   tenant and of the operator. Rules about people bind the tenant's own people only.
package hansa.rooms

import data.hansa.lib.settings
import data.hansa.lib.who
import data.hansa.subjects

_tenant := object.get(settings.tenant, "rooms", {})

_operator := object.get(settings.operator, "rooms", {})

# Nobody has set anything, the common case.
default _unset := false

_unset if {
	not data.config[input.tenant.name].rooms
	not data.config.operator.rooms
}

default create := false

create if _unset

create if _may("create")

default invite := false

invite if _unset

invite if _may("invite")

default publish := false

publish if _may("publish")

default alias := false

alias if _may("alias")

# METADATA
# description: The room is not made public, or the person may do that.
default public := false

public if _unset

public if {
	_join_rule != "public"
	object.get(input.room, "public", false) == false
}

public if {
	input.point == "room.state"
	_join_rule != "public"
}

public if _may("public")

# METADATA
# description: The way of joining that is asked for is permitted.
default join_rule := false

join_rule if _unset

join_rule if _join_rule == ""

join_rule if {
	_listed("join_rules", _join_rule)
}

# METADATA
# description: The history visibility that is asked for is permitted. `world_readable` must be listed to be used.
default history := false

history if {
	_unset
	_history in {"", "invited", "joined", "shared"}
}

history if _history == ""

history if {
	object.get(_tenant, "history_visibility", "unset") == "unset"
	_history in {"invited", "joined", "shared"}
	_in_list(_operator, "history_visibility", _history)
}

history if {
	_history in _tenant.history_visibility
	_in_list(_operator, "history_visibility", _history)
}

# METADATA
# description: |
#   Somebody of another domain comes into a room that can be made to show newcomers no more of its past than is
#   permitted: whoever is let in by a partner later can read what the partner's server has. See partner_obligations.
default partner_history := false

partner_history if _newcomer.tenant == input.tenant.name

partner_history if _partner_most

# METADATA
# description: The same for a change of the history visibility where somebody of another domain is in the room.
default partner_history_kept := false

partner_history_kept if input.event.type != "m.room.history_visibility"

partner_history_kept if input.room.servers == [input.tenant.name]

partner_history_kept if _partner_history_permits(input.event.value)

# METADATA
# description: |
#   What the room has to be changed to before somebody of another domain comes in: the most that it may show. Nothing
#   where it shows no more.
default partner_obligations := {}

partner_obligations := {"history_visibility": _partner_most} if {
	_newcomer.tenant != input.tenant.name
	not _partner_history_permits(input.room.history_visibility)
}

# METADATA
# description: The same for a new room into which people of other domains are invited.
default new_partner_obligations := {}

new_partner_obligations := {"history_visibility": _partner_most} if {
	input.room.servers != [input.tenant.name]
	not _partner_history_permits(input.room.history_visibility)
}

# METADATA
# description: The most that rooms may show in which a server takes part that is let in.
default server_obligations := {}

server_obligations := {"history_visibility": _partner_most}

default _partner_history_unset := false

_partner_history_unset if {
	not data.config[input.tenant.name].rooms.partner_history
	not data.config.operator.rooms.partner_history
}

default _partner_history_permits(_) := false

_partner_history_permits(visibility) if {
	_partner_history_unset
	visibility in {"invited", "joined"}
}

_partner_history_permits(visibility) if {
	not _partner_history_unset
	_in_list(_tenant, "partner_history", visibility)
	_in_list(_operator, "partner_history", visibility)
}

# The most open one of those that are permitted; undefined where none is.
_partner_most := "invited" if {
	_partner_history_unset
} else := [visibility |
	some visibility in ["world_readable", "shared", "invited", "joined"]
	_partner_history_permits(visibility)
][0]

# METADATA
# description: The version of the room is permitted.
default version := false

version if _unset

version if _version == ""

version if {
	_listed("versions", _version)
}

# METADATA
# description: The type of the room is permitted. Ordinary rooms have none.
default type := false

type if _unset

type if object.get(input.room, "type", "") == ""

type if {
	_listed("types", input.room.type)
}

# METADATA
# description: There is room for one more member.
default size := false

size if _unset

size if {
	not data.config[input.tenant.name].rooms.max_members
	not data.config.operator.rooms.max_members
}

size if {
	_has_room(object.get(_tenant, "max_members", "unlimited"))
	_has_room(object.get(_operator, "max_members", "unlimited"))
}

# METADATA
# description: Nobody of another domain enters a room that is internal to one.
default federation := false

federation if _newcomer.tenant == input.room.tenant

federation if {
	object.get(input.room, "federate", true) == true
	_federates
}

# METADATA
# description: The subject may see into the room, as a member, or as one who may be with everybody in it.
default readable := false

readable if input.room.membership in {"join", "leave", "ban"}

readable if input.room.contact.allow == true

# METADATA
# description: The subject may remove people, as one of our own or by an agreement with its server.
default removal := false

removal if input.subject.local == true

removal if input.subject.kind == "operator"

removal if {
	count(input.agreements) > 0
	every record in input.agreements { record.state == "active" }
}

# METADATA
# description: Obligations for a new room.
obligations := {} if {
	_unset
	input.room.servers == [input.tenant.name]
} else := new_partner_obligations if {
	_federates
} else := {"federate": false}

# METADATA
# description: Obligations about a server that is refused and takes part in rooms in which nobody of ours can remove it.
default stranger_obligations := {}

stranger_obligations := {"strangers": "leave"} if "leave" in {object.get(_tenant, "strangers", "stay"), object.get(_operator, "strangers", "stay")}

default _federates := false

_federates if _unset

_federates if {
	not data.config[input.tenant.name].rooms.federate
	not data.config.operator.rooms.federate
}

_federates if {
	object.get(_tenant, "federate", "agreed") == "agreed"
	object.get(_operator, "federate", "agreed") == "agreed"
}

# A rule about people, in the settings of the operator and, for its own people, of the tenant.
default _may(_) := false

_may(name) if {
	not data.config[input.tenant.name].rooms[name]
	not data.config.operator.rooms[name]
}

_may(name) if {
	subjects.own_tenant
	who.matches(object.get(_tenant, name, "everyone"), input.subject)
	who.matches(object.get(_operator, name, "everyone"), input.subject)
}

_may(name) if {
	input.subject.tenant != input.tenant.name
	who.matches(object.get(_operator, name, "everyone"), input.subject)
}

# What the request sets: the room as it is to be created, or the value of the state event or the upgrade.
default _join_rule := ""

_join_rule := input.room.join_rule if input.point == "room.create"

_join_rule := input.event.value if {
	input.point == "room.state"
	input.event.type == "m.room.join_rules"
}

default _history := ""

_history := input.room.history_visibility if input.point == "room.create"

_history := input.event.value if {
	input.point == "room.state"
	input.event.type == "m.room.history_visibility"
}

default _version := ""

_version := input.room.version if input.point == "room.create"

_version := input.event.value if input.point == "room.upgrade"

_newcomer := input.target if input.point == "room.invite"

_newcomer := input.subject if input.point != "room.invite"

default _listed(_, _) := false

_listed(name, _) if {
	not data.config[input.tenant.name].rooms[name]
	not data.config.operator.rooms[name]
}

_listed(name, value) if {
	_in_list(_tenant, name, value)
	_in_list(_operator, name, value)
}

default _in_list(_, _, _) := false

_in_list(scope, name, _) if object.get(scope, name, "unset") == "unset"

_in_list(scope, name, value) if value in scope[name]

default _has_room(_) := false

_has_room("unlimited")

_has_room(limit) if {
	is_number(limit)
	input.room.members < limit
}
