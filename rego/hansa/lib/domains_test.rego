package hansa.lib.domains_test

import data.hansa.lib.domains

test_exact if domains.matches("corp.example", "corp.example")

test_suffix_of_another_name_never_matches if {
	domains.matches("corp.example", "evilcorp.example") == false
	domains.matches("*.corp.example", "evilcorp.example") == false
	domains.matches("*.corp.example", "corp.example.evil.net") == false
	domains.matches("*corp.example", "evilcorp.example") == false
	domains.matches(".corp.example", "a.corp.example") == false
}

test_label_wildcard if {
	domains.matches("*.corp.example", "a.corp.example")
	domains.matches("*.corp.example", "a.b.corp.example")
}

test_label_wildcard_is_not_the_name_itself if domains.matches("*.corp.example", "corp.example") == false

test_label_wildcard_needs_a_label if domains.matches("*.corp.example", ".corp.example") == false

test_star_in_the_middle_is_no_pattern if domains.matches("a.*.example", "a.b.example") == false

test_glob_characters_are_no_patterns if {
	domains.matches("?orp.example", "corp.example") == false
	domains.matches("[c]orp.example", "corp.example") == false
	domains.matches("{corp,acme}.example", "corp.example") == false
}

test_case_and_dot_do_not_matter if {
	domains.matches("Partner.Example", "partner.example")
	domains.matches("partner.example", "PARTNER.example.")
	domains.matches("*.Corp.Example", "A.corp.example")
}

test_port_is_another_server if {
	domains.matches("partner.example", "partner.example:8448") == false
	domains.matches("partner.example:8448", "partner.example") == false
	domains.matches("partner.example:8448", "partner.example:8448")
	domains.matches("*.corp.example", "a.corp.example:8448") == false
}

test_star_covers_all_but_the_empty_name if {
	domains.matches("*", "anything.example")
	domains.matches("*", "") == false
}

test_empty_list_covers_nobody if domains.any_match([], "corp.example") == false

test_permits_without_rules if domains.permits({}, "corp.example")

test_permits_with_empty_allow_nobody if domains.permits({"allow": []}, "corp.example") == false

test_permits_listed_only if {
	domains.permits({"allow": ["corp.example"]}, "corp.example")
	domains.permits({"allow": ["corp.example"]}, "other.example") == false
}

test_deny_wins if domains.permits({"allow": ["corp.example"], "deny": ["corp.example"]}, "corp.example") == false

test_deny_without_allow if {
	domains.permits({"deny": ["*.evil.example"]}, "corp.example")
	domains.permits({"deny": ["*.evil.example"]}, "x.evil.example") == false
}

test_parts_that_are_no_list_permit_nothing if {
	domains.permits({"allow": null}, "corp.example") == false
	domains.permits({"allow": "corp.example"}, "corp.example") == false
	domains.permits({"deny": "evil.example"}, "corp.example") == false
	domains.permits({"deny": null}, "corp.example") == false
}
