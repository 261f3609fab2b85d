# METADATA
# title: Patterns
# description: |
#   Compares dotted or slashed words (event types, message types, media types, admin actions) with entries of a list. An
#   entry is an exact word, or a beginning that ends in ".*" or "/*" ("m.call.*", "image/*"), or "*" for all.
package hansa.lib.patterns

# METADATA
# description: True when the word is covered by this one entry.
default matches(_, _) := false

matches("*", word) if word != ""

matches(entry, word) if entry == word

matches(entry, word) if {
	endswith(entry, ".*")
	startswith(word, trim_suffix(entry, "*"))
}

matches(entry, word) if {
	endswith(entry, "/*")
	startswith(word, trim_suffix(entry, "*"))
}

# METADATA
# description: True when the word is covered by one of the entries. An empty list covers nothing.
default any_match(_, _) := false

any_match(entries, word) if {
	some entry in entries
	matches(entry, word)
}

# METADATA
# description: |
#   True when an object {allow: [...], deny: [...]} permits the word. Without `allow` every word is permitted, an empty
#   `allow` permits none, `deny` wins. A part that is not a list permits nothing.
default permits(_, _) := false

permits({}, word) if word != ""

permits(rules, word) if {
	allowed := object.get(rules, "allow", ["*"])
	denied := object.get(rules, "deny", [])
	is_array(allowed)
	is_array(denied)
	any_match(allowed, word)
	every entry in denied { matches(entry, word) == false }
}
