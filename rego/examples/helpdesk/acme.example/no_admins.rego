# METADATA
# title: The helpdesk does not touch administrators
package tenants["acme.example"].admin.action

_protected := {"admin", "auditor"}

deny contains {"code": "protected_account", "message": "The helpdesk cannot change this account."} if {
	not "admin" in input.subject.roles
	some role in input.target.roles
	role in _protected
}
