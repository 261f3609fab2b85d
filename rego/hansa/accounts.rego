# METADATA
# title: Accounts
# description: What people may do with their own account only.
package hansa.accounts

# METADATA
# description: No other account is touched.
default self := false

self if {
	input.subject.id == input.target.id
	input.subject.id != ""
}

self if object.get(input, "target", "none") == "none"
