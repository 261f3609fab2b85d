# METADATA
# title: Strict pools
# description: |
#   Reasons against contact of people of one tenant who share no pool, of whatever kind, for tenants that set
#   `custom.strict_pools: true`. Without the pack people who are in open pools only, or in none, may meet. Bridges keep
#   their own rules, and people of other tenants their agreements.
package operator.packs.strict_pools

import data.hansa.lib.sets

reasons contains {"code": "no_common_pool", "message": "You share no pool with this person."} if {
	data.config[input.tenant.name].custom.strict_pools == true
	input.subject.tenant == input.target.tenant
	_common == false
}

default _common := false

_common if sets.intersect(input.subject.pools, input.target.pools)

_common if input.subject.kind in {"ghost", "bridge"}

_common if input.target.kind in {"ghost", "bridge"}
