package hansa.lib.patterns_test

import data.hansa.lib.patterns

test_exact if {
	patterns.matches("m.room.message", "m.room.message")
	patterns.matches("m.room.message", "m.room.messages") == false
}

test_dotted_beginning if {
	patterns.matches("m.call.*", "m.call.invite")
	patterns.matches("m.call.*", "m.callx.invite") == false
	patterns.matches("m.call.*", "m.call") == false
}

test_media_type_family if {
	patterns.matches("image/*", "image/png")
	patterns.matches("image/*", "imagex/png") == false
}

test_other_stars_are_no_patterns if {
	patterns.matches("im*", "image/png") == false
	patterns.matches("*/png", "image/png") == false
}

test_star if {
	patterns.matches("*", "anything")
	patterns.matches("*", "") == false
}

test_permits if {
	patterns.permits({}, "m.text")
	patterns.permits({"allow": []}, "m.text") == false
	patterns.permits({"allow": ["m.text"]}, "m.text")
	patterns.permits({"allow": ["m.text"]}, "m.file") == false
	patterns.permits({"deny": ["m.file"]}, "m.text")
	patterns.permits({"deny": ["m.file"]}, "m.file") == false
	patterns.permits({"allow": ["*"], "deny": ["m.file"]}, "m.file") == false
}

test_parts_that_are_no_list_permit_nothing if {
	patterns.permits({"allow": "m.text"}, "m.text") == false
	patterns.permits({"deny": "m.file"}, "m.text") == false
}
