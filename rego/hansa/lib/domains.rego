# METADATA
# title: Domain names
# description: |
#   Compares server names with entries of a list. An entry is an exact name, or "*.corp.example" for every name below
#   corp.example (whole labels only, not corp.example itself), or "*" for all. Nothing else is a pattern: an entry
#   "corp.example" never matches "evilcorp.example" or "corp.example.evil.net". A port belongs to the name.
package hansa.lib.domains

# METADATA
# description: The form in which names are compared, small letters and no dot at the end.
normal(name) := trim_suffix(lower(name), ".")

# METADATA
# description: True when the name is covered by this one entry.
default matches(_, _) := false

matches("*", name) if name != ""

matches(entry, name) if normal(entry) == normal(name)

matches(entry, name) if {
	startswith(entry, "*.")
	suffix := substring(normal(entry), 1, -1)
	endswith(normal(name), suffix)
	not startswith(normal(name), ".")
}

# METADATA
# description: True when the name is covered by one of the entries. An empty list covers nobody.
default any_match(_, _) := false

any_match(entries, name) if {
	some entry in entries
	matches(entry, name)
}

# METADATA
# description: |
#   True when an object {allow: [...], deny: [...]} permits the name. Without `allow` every name is permitted, an empty
#   `allow` permits nobody, `deny` wins. A part that is not a list permits nothing.
default permits(_, _) := false

permits({}, name) if name != ""

permits(rules, name) if {
	allowed := object.get(rules, "allow", ["*"])
	denied := object.get(rules, "deny", [])
	is_array(allowed)
	is_array(denied)
	any_match(allowed, name)
	every entry in denied { matches(entry, name) == false }
}
