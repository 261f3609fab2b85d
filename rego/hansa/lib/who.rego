# METADATA
# title: Who
# description: |
#   A selector says which people of a tenant may do something: "everyone", "nobody", or an object with any of the lists
#   pools, roles, groups, users, of which a person must be in at least one entry.
package hansa.lib.who

import data.hansa.lib.sets

default matches(_, _) := false

matches("everyone", _)

matches(selector, user) if sets.intersect(selector.pools, user.pools)

matches(selector, user) if sets.intersect(selector.roles, user.roles)

matches(selector, user) if sets.intersect(selector.groups, user.groups)

matches(selector, user) if user.id in selector.users
