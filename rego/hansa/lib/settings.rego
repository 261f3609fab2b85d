# METADATA
# title: Settings
# description: |
#   The YAML of the tenant that is asked (folder policy/<tenant>/) and of the operator (folder policy/operator/).
#   Both are empty objects when nobody wrote any; the areas then use their defaults.
package hansa.lib.settings

default tenant := {}

tenant := data.config[input.tenant.name]

default operator := {}

operator := data.config.operator

# METADATA
# description: Both sets of settings. A check must pass in each of them, so the operator can only narrow.
both := [tenant, operator]

# METADATA
# description: One section of the settings of the tenant, an empty object when it is not there.
section(name) := object.get(tenant, name, {})
