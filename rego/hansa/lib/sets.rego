# METADATA
# title: Sets
# description: Small questions about two lists.
package hansa.lib.sets

# METADATA
# description: True when one thing is in both lists.
default intersect(_, _) := false

intersect(left, right) if {
	some item in left
	item in right
}

# METADATA
# description: True when both are lists and everything in the first is also in the second.
default within(_, _) := false

within(inner, outer) if {
	is_array(inner)
	is_array(outer)
	every item in inner { item in outer }
}
