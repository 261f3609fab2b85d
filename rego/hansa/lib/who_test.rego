package hansa.lib.who_test

import data.hansa.lib.who

_ann := {"id": "@ann:acme.example", "pools": ["sales"], "roles": ["lead"], "groups": ["emea"]}

test_everyone if who.matches("everyone", {"id": "@x:acme.example"})

test_nobody if who.matches("nobody", _ann) == false

test_unknown_word_is_nobody if who.matches("all", _ann) == false

test_each_list if {
	who.matches({"pools": ["sales"]}, _ann)
	who.matches({"roles": ["lead"]}, _ann)
	who.matches({"groups": ["emea"]}, _ann)
	who.matches({"users": ["@ann:acme.example"]}, _ann)
}

test_one_list_is_enough if who.matches({"pools": ["research"], "roles": ["lead"]}, _ann)

test_no_list_matches if who.matches({"pools": ["research"], "roles": ["boss"]}, _ann) == false

test_empty_lists_are_nobody if {
	who.matches({}, _ann) == false
	who.matches({"pools": [], "roles": []}, _ann) == false
}

test_person_without_attributes if who.matches({"pools": ["sales"]}, {"id": "@x:acme.example"}) == false

test_odd_selectors_are_nobody if {
	who.matches(null, _ann) == false
	who.matches(true, _ann) == false
	who.matches(["sales"], _ann) == false
}
