# METADATA
# title: Settings
# description: |
#   The YAML of the tenant that is asked (folder policy/<tenant>/) and of the operator (folder policy/operator/).
#   Both are empty objects when nobody wrote any; the areas then use their defaults. A check of an area that both may
#   set must pass in each of them, so the operator can only narrow.
package hansa.lib.settings

default tenant := {}

tenant := data.config[input.tenant.name]

default operator := {}

operator := data.config.operator
