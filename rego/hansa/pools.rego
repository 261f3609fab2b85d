# METADATA
# title: Pools
# description: |
#   Whether two people of the same tenant may meet. A pool is open, closed, or linked with other pools ({with: [...]}); a
#   pool without a description is closed. Closed and linked pools are restricted. Two people may meet when they share a
#   restricted pool; else when neither is in a closed pool and each is accepted by the other: someone without restricted
#   pools accepts everybody, someone in linked pools accepts who is in a pool that one of them names. Open pools never
#   widen anything.
package hansa.pools

import data.hansa.lib.sets
import data.hansa.subjects

# METADATA
# description: |
#   The pools do not keep subject and target apart. Pools of one tenant say nothing about people of others, and ghosts of
#   bridges are connected by the bridge's entry.
default pair := false

pair if input.subject.tenant != input.target.tenant

pair if {
	input.subject.tenant == input.tenant.name
	input.target.tenant == input.tenant.name
	input.subject.pools == []
	input.target.pools == []
}

pair if {"ghost", "bridge"} & {input.subject.kind, input.target.kind} != set()

pair if {
	subjects.same_tenant
	input.subject.tenant == input.tenant.name
	_meet(input.subject.pools, input.target.pools)
}

# METADATA
# description: The restricted ones among the pools of the tenant that is asked.
restricted(pools) := {pool | some pool in pools; contact(pool) != "open"}

# METADATA
# description: '"open", "closed", or the names of the linked pools. Unknown pools are closed.'
default contact(_) := "closed"

contact(pool) := "open" if data.config[input.tenant.name][pool].contact == "open"

contact(pool) := linked if {
	linked := data.config[input.tenant.name][pool].contact["with"]
	is_array(linked)
}

default _meet(_, _) := false

_meet(left, right) if {
	some pool in left
	pool in right
	contact(pool) != "open"
}

_meet(left, right) if {
	is_array(left)
	is_array(right)
	{kind | some pool in left; kind := contact(pool)} & {"closed"} == set()
	{kind | some pool in right; kind := contact(pool)} & {"closed"} == set()
	_accepts(left, right)
	_accepts(right, left)
}

default _accepts(_, _) := false

_accepts(pools, _) if count(restricted(pools)) == 0

_accepts(pools, others) if {
	some pool in pools
	linked := contact(pool)
	is_array(linked)
	sets.intersect(linked, others)
}
