package tenants["law.example"].contact_test

import data.tenants["law.example"].contact

_ask(ours, theirs) := {"subject": {"attributes": {"matter": ours}}, "target": {"attributes": {"matter": theirs}}}

test_conflict_both_ways if {
	count(contact.deny) == 1 with input as _ask("northwind", "contoso")
	count(contact.deny) == 1 with input as _ask("contoso", "northwind")
}

test_one_entry_is_enough if {
	count(contact.deny) == 1 with input as _ask("a", "b") with data.config as {"law.example": {"custom": {"conflicts": {"b": ["a"]}}}}
}

test_same_matter if contact.deny == set() with input as _ask("contoso", "contoso")

test_other_matters if contact.deny == set() with input as _ask("contoso", "fabrikam")

test_people_without_matter if contact.deny == set() with input as {"subject": {"attributes": {}}, "target": {"attributes": {"matter": "contoso"}}}
