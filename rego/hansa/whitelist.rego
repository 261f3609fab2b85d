# METADATA
# title: Whitelist
# description: |
#   Whether a hosted account is enabled. The server works out `listed`: always true while the whitelist of the tenant is
#   off, else true for the accounts and groups of the list. An account that is not listed cannot log in, be invited or be
#   seen. Accounts of other servers are judged by agreements, ghosts by their bridge's entry.
# related_resources:
#   - ref: docs/policies.md
package hansa.whitelist

default subject := false

subject if {
	input.subject.local == true
	input.subject.listed == true
}

subject if input.subject.local == false

subject if input.subject.kind in {"operator", "ghost", "bridge"}

default target := false

target if {
	input.target.local == true
	input.target.listed == true
}

target if input.target.local == false

target if {
	input.target.local == true
	input.target.kind in {"ghost", "bridge"}
}

# METADATA
# description: The new account is on the whitelist, or is made by an administrator who can put it there.
default newcomer := false

newcomer if target == true

newcomer if input.subject.kind == "operator"

newcomer if "admin" in input.subject.roles
