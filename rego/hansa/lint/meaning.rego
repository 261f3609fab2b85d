# METADATA
# title: Meaning of the settings
# description: Settings that are well formed and still suspicious.
package hansa.lint.meaning

import data.hansa.lint.shape

problems contains _problem([folder], "is not a tenant of this deployment") if {
	some folder, _ in data.config
	folder != "operator"
	is_array(input.tenants)
	not folder in input.tenants
}

problems contains _problem([tenant, name, "contact"], sprintf("links pool %s, which is not described and so is closed", [linked])) if {
	some tenant, _ in data.config
	some name, pool in _pools(tenant)
	some linked in pool.contact["with"]
	not _pools(tenant)[linked]
}

problems contains _problem([tenant, name, "contact"], sprintf("links pool %s, which does not link back", [linked])) if {
	some tenant, _ in data.config
	some name, pool in _pools(tenant)
	some linked in pool.contact["with"]
	other := _pools(tenant)[linked]
	object.get(other, "contact", "closed") != "open"
	not _links(other, name)
}

problems contains _problem([tenant, "partners", domain, "pools"], sprintf("names pool %s, which is not described", [agreed.ours])) if {
	some tenant, settings in data.config
	some domain, partner in settings.partners
	some agreed in partner.pools
	agreed.ours != "*"
	not _pools(tenant)[agreed.ours]
}

problems contains _problem([tenant, "bridges", bridge, "contact"], sprintf("names pool %s, which is not described", [name])) if {
	some tenant, settings in data.config
	some bridge, entry in settings.bridges
	some name in entry.contact
	not _pools(tenant)[name]
}

problems contains _problem([tenant, "whitelist"], "is on and empty: nobody but accounts marked in the database can log in") if {
	some tenant, settings in data.config
	settings.whitelist.enabled == true
	object.get(settings.whitelist, "users", []) == []
	object.get(settings.whitelist, "groups", []) == []
}

problems contains _problem([tenant, "domains", "allow"], "is empty: no other server is allowed") if {
	some tenant, settings in data.config
	settings.domains.allow == []
}

_links(pool, name) if name in pool.contact["with"]

_pools(tenant) := {name: pool |
	some name, pool in data.config[tenant]
	not name in shape.reserved
	is_object(pool)
}

_problem(path, message) := {"path": concat("/", path), "message": message}
