# METADATA
# title: Networks
# description: Compares an address with ranges in CIDR form, "10.0.0.0/8" or "2001:db8::/32". An empty list contains nobody.
package hansa.lib.networks

# METADATA
# description: True when the address lies in one of the ranges. An IPv4 address written in IPv6 form counts as IPv4.
default any_contains(_, _) := false

any_contains(ranges, address) if {
	plain := trim_prefix(lower(address), "::ffff:")
	some range in ranges
	net.cidr_contains(range, plain)
}
