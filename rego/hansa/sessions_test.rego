package hansa.sessions_test

import data.hansa.fixtures
import data.hansa.sessions

# Monday, 11:00 in Berlin.
_question := object.union(fixtures.base, {"point": "account.login", "subject": object.union(fixtures.ann, {"roles": ["oncall"]})})

_tenant(rules) := {"acme.example": {"sessions": rules}}

test_without_settings_everybody_logs_in if {
	sessions.people with input as _question with data.config as {}
	sessions.network with input as _question with data.config as {}
	sessions.hours with input as _question with data.config as {}
}

test_people if {
	sessions.people with input as _question with data.config as _tenant({"login": {"roles": ["oncall"]}})
	sessions.people == false with input as _question with data.config as _tenant({"login": {"roles": ["boss"]}})
	sessions.people == false with input as _question with data.config as _tenant({"login": "nobody"})
	sessions.people == false with input as _question with data.config as {"operator": {"sessions": {"login": "nobody"}}}
}

test_network if {
	sessions.network with input as _question with data.config as _tenant({"networks": ["192.0.2.0/24"]})
	sessions.network == false with input as _question with data.config as _tenant({"networks": ["10.0.0.0/8"]})
	sessions.network == false with input as _question with data.config as _tenant({"networks": []})
	sessions.network == false with input as object.remove(_question, ["request"]) with data.config as _tenant({"networks": ["0.0.0.0/0"]})
}

test_hours_in_the_zone_of_the_tenant if {
	sessions.hours with input as _question with data.config as _tenant({"hours": {"from": "10:30", "to": "11:30"}})
	sessions.hours == false with input as _question with data.config as _tenant({"hours": {"from": "09:30", "to": "10:30"}})
}

test_hours_in_a_zone_of_their_own if {
	sessions.hours with input as _question with data.config as _tenant({"hours": {"from": "09:30", "to": "10:30", "timezone": "UTC"}})
}

test_days if {
	sessions.hours with input as _question with data.config as _tenant({"hours": {"from": "06:00", "to": "20:00", "days": ["mon"]}})
	sessions.hours == false with input as _question with data.config as _tenant({"hours": {"from": "06:00", "to": "20:00", "days": ["sun"]}})
	sessions.hours == false with input as _question with data.config as _tenant({"hours": {"from": "06:00", "to": "20:00", "days": []}})
}

test_unreadable_hours_permit_nothing if {
	every odd in [{}, {"from": "x", "to": "20:00"}, null, "day"] {
		not _in_hours(odd)
	}
}

_in_hours(hours) if {
	sessions.hours with input as _question with data.config as _tenant({"hours": hours})
}

test_exempt_people if {
	sessions.hours with input as _question
		with data.config as _tenant({"hours": {"from": "01:00", "to": "02:00"}, "exempt": {"roles": ["oncall"]}})
	sessions.network with input as _question with data.config as _tenant({"networks": [], "exempt": {"roles": ["oncall"]}})
}

test_the_operator_grants_no_exemption_from_the_tenant if {
	sessions.hours == false with input as _question with data.config as {
		"acme.example": {"sessions": {"hours": {"from": "01:00", "to": "02:00"}}},
		"operator": {"sessions": {"exempt": "everyone"}},
	}
}
