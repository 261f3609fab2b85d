package hansa.lib.networks_test

import data.hansa.lib.networks

test_inside if networks.any_contains(["192.0.2.0/24", "10.0.0.0/8"], "10.1.2.3")

test_outside if networks.any_contains(["10.0.0.0/8"], "11.0.0.1") == false

test_empty_list_contains_nobody if networks.any_contains([], "10.0.0.1") == false

test_ipv6 if {
	networks.any_contains(["2001:db8::/32"], "2001:db8::1")
	networks.any_contains(["2001:db8::/32"], "2001:db9::1") == false
}

test_mapped_address_counts_as_ipv4 if networks.any_contains(["10.0.0.0/8"], "::ffff:10.1.2.3")

test_neighbour_of_a_range_is_outside if {
	networks.any_contains(["192.0.2.0/25"], "192.0.2.127")
	networks.any_contains(["192.0.2.0/25"], "192.0.2.128") == false
}
