# METADATA
# title: Whitelist
# description: |
#   Whether a hosted account is enabled. The server works out `listed`: always true while the whitelist of the tenant is
#   off, else true for the accounts and groups of the list. An account that is not listed cannot log in, be invited or be
#   seen. Accounts of other servers are judged by agreements.
# related_resources:
#   - ref: docs/policies.md
package hansa.whitelist

default subject := false

subject if _enabled(input.subject)

default target := false

target if _enabled(input.target)

# METADATA
# description: The new account is on the whitelist, or is made by an administrator who can put it there.
default newcomer := false

newcomer if target == true

newcomer if input.subject.kind == "operator"

newcomer if "admin" in input.subject.roles

default _enabled(_) := false

_enabled(user) if {
	user.local == true
	user.listed == true
}

_enabled(user) if user.local == false

_enabled(user) if user.kind == "operator"

_enabled(user) if {
	user.kind in {"ghost", "bridge"}
	user.local == true
}
