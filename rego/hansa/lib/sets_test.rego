package hansa.lib.sets_test

import data.hansa.lib.sets

test_intersect if {
	sets.intersect(["a", "b"], ["b", "c"])
	sets.intersect(["a"], ["b"]) == false
	sets.intersect([], ["b"]) == false
	sets.intersect(["a"], []) == false
}

test_within if {
	sets.within(["a"], ["a", "b"])
	sets.within([], ["a"])
	sets.within(["a", "c"], ["a", "b"]) == false
}

test_within_needs_two_lists if {
	sets.within("a", ["a"]) == false
	sets.within(["a"], null) == false
}
