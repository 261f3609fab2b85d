# METADATA
# title: Accounts
# description: What people may do with their own account only.
package hansa.accounts

import data.hansa.subjects

# METADATA
# description: No other account is touched.
default self := false

self if subjects.self

self if object.get(input, "target", "none") == "none"
