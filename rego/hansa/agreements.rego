# METADATA
# title: Agreements
# description: |
#   Whether two domains allow each other what is asked. An agreement is a record of one domain about another: state,
#   direction, pairs of pools, features. Between two domains each side that is hosted here needs its own active record
#   that covers the two people; a side elsewhere needs one too when the records are exchanged (`mutual`). Section
#   `partners` of the tenant narrows its own records. What a record does not name is not agreed.
package hansa.agreements

import data.hansa.lib.settings
import data.hansa.pools
import data.hansa.subjects

# METADATA
# description: Subject may reach target, same tenant, or covered by the records of both sides.
default pair := false

pair if subjects.same_tenant

pair if {
	_any_local
	_outgoing
	_incoming
	_narrowed
}

# METADATA
# description: The record of the tenant about the server of the request is active.
default server := false

server if _own_server

server if {
	input.server.name != ""
	input.tenant.name != ""
	_active(input.server.agreement)
	_partner_permits(input.server.name)
}

# METADATA
# description: |
#   The same, or an agreement that is over while the request only takes people out of a room: leaving works as long as there
#   once was an agreement.
default server_or_parting := false

server_or_parting if server == true

server_or_parting if {
	input.event.membership == "leave"
	input.server.agreement.state in {"suspended", "ended", "expired"}
}

# METADATA
# description: A subject of another server is covered by the tenant's agreement with it.
default subject_grants(_) := false

subject_grants(_) if subjects.own_tenant

subject_grants(feature) if {
	input.server.name == input.subject.tenant
	server_grants(feature)
}

# METADATA
# description: Every record between subject and target covers the feature, and there is one.
default grants(_) := false

grants(_) if subjects.same_tenant

grants(feature) if {
	count(input.agreements) > 0
	every record in input.agreements {
		_active(record)
		_covers_feature(record.scope.features, feature)
	}
	_own_entry_grants(feature)
}

# METADATA
# description: The record of the tenant about the server of the request covers the feature.
default server_grants(_) := false

server_grants(_) if _own_server

server_grants(feature) if {
	server == true
	_covers_feature(input.server.agreement.scope.features, feature)
	_partner_grants(input.server.name, feature)
}

# METADATA
# description: Another domain takes part, the subject's or the server of the request.
default elsewhere := false

elsewhere if input.subject.tenant != input.tenant.name

elsewhere if input.server.name != input.tenant.name

default _own_server := false

_own_server if input.server.name == input.tenant.name

default _any_local := false

_any_local if input.subject.local == true

_any_local if input.target.local == true

# The side of the subject: it reaches out.
default _outgoing := false

_outgoing if {
	record := input.agreements.outgoing
	_active(record)
	record.scope.direction in {"both", "outbound"}
	_covers_people(record.scope.pools, input.subject, input.target)
}

_outgoing if {
	input.subject.local == false
	object.get(input.agreements, "outgoing", "none") == "none"
	input.agreements.incoming.mutual == false
}

# The side of the target: it is reached.
default _incoming := false

_incoming if {
	record := input.agreements.incoming
	_active(record)
	record.scope.direction in {"both", "inbound"}
	_covers_people(record.scope.pools, input.target, input.subject)
}

_incoming if {
	input.target.local == false
	object.get(input.agreements, "incoming", "none") == "none"
	input.agreements.outgoing.mutual == false
}

default _active(_) := false

_active(record) if record.state == "active"

default _covers_people(_, _, _) := false

_covers_people("*", ours, _) if _unrestricted(ours)

_covers_people(pairs, ours, theirs) if {
	some agreed in pairs
	_covers_ours(agreed.ours, ours)
	_covers_theirs(agreed.theirs, theirs)
}

default _covers_ours(_, _) := false

_covers_ours("*", ours) if _unrestricted(ours)

_covers_ours(pool, ours) if pool in ours.pools

default _covers_theirs(_, _) := false

_covers_theirs("*", _)

_covers_theirs(pool, theirs) if pool in theirs.pools

# A star covers our people outside restricted pools. How the other tenant's pools are set is judged when that tenant is asked.
default _unrestricted(_) := false

_unrestricted(ours) if ours.tenant != input.tenant.name

_unrestricted(ours) if {
	ours.tenant == input.tenant.name
	is_array(ours.pools)
	count(pools.restricted(ours.pools)) == 0
}

default _covers_feature(_, _) := false

_covers_feature("*", _)

_covers_feature(features, feature) if {
	is_array(features)
	feature in features
}

# The name of the other domain, seen from the tenant that is asked.
_foreign := input.target.tenant if input.subject.tenant == input.tenant.name

_foreign := input.subject.tenant if input.target.tenant == input.tenant.name

# The entry in section `partners`, an empty object when there is none.
_partner(name) := object.get(settings.tenant, ["partners", name], {})

default _narrowed := false

_narrowed if _partner(_foreign) == {}

_narrowed if {
	entry := _partner(_foreign)
	_state(entry) == "active"
	input.subject.tenant == input.tenant.name
	object.get(entry, "direction", "both") in {"both", "outbound"}
	_covers_people(entry.pools, input.subject, input.target)
}

_narrowed if {
	entry := _partner(_foreign)
	_state(entry) == "active"
	input.target.tenant == input.tenant.name
	object.get(entry, "direction", "both") in {"both", "inbound"}
	_covers_people(entry.pools, input.target, input.subject)
}

default _own_entry_grants(_) := false

_own_entry_grants(feature) if _partner_grants(_foreign, feature)

_own_entry_grants(_) if {
	input.subject.tenant != input.tenant.name
	input.target.tenant != input.tenant.name
}

default _partner_permits(_) := false

_partner_permits(name) if _state(_partner(name)) == "active"

default _partner_grants(_, _) := false

_partner_grants(name, _) if _partner(name) == {}

_partner_grants(name, feature) if {
	entry := _partner(name)
	_state(entry) == "active"
	_covers_feature(entry.features, feature)
}

_state(entry) := object.get(entry, "state", "active")
