# METADATA
# title: Administration
# description: |
#   Who may administer what. Section `admin`: `roles` gives each role its actions (absent: role `admin` may do
#   everything, role `auditor` what begins with "audit."), `approval` lists the actions that need a reason and a second
#   person (absent: everything that begins with "break_glass."). An administrator acts on the own tenant only; the
#   operator of the deployment on all.
package hansa.admin

import data.hansa.lib.patterns
import data.hansa.lib.settings

_default_roles := {"admin": ["*"], "auditor": ["audit.*"]}

_default_approval := ["break_glass.*"]

# METADATA
# description: A role of the subject covers the action.
default action := false

action if {
	input.subject.kind == "operator"
	input.admin.action != ""
}

action if {
	input.subject.kind in {"user", "bot"}
	some role in input.subject.roles
	patterns.any_match(_roles[role], input.admin.action)
}

# METADATA
# description: The action stays within the tenant of the administrator.
default scope := false

scope if input.subject.kind == "operator"

scope if {
	input.subject.local == true
	input.subject.tenant == input.tenant.name
	input.admin.tenant == input.tenant.name
}

# METADATA
# description: Another person has approved the action, with a reason, where that is needed.
default approved := false

approved if patterns.any_match(_approval, input.admin.action) == false

approved if {
	input.admin.reason != ""
	input.admin.approver != ""
	input.admin.approver != input.subject.id
}

_roles := object.get(settings.tenant, ["admin", "roles"], _default_roles)

_approval := array.concat(
	object.get(settings.tenant, ["admin", "approval"], _default_approval),
	object.get(settings.operator, ["admin", "approval"], []),
)
