package hansa.bridges_test

import data.hansa.bridges
import data.hansa.fixtures

_settings := {"acme.example": {"bridges": {
	"irc": {"points": ["event.send"], "contact": ["staff"]},
	"mail": {"points": [], "contact": "everyone", "partners": true},
	"mute": {"points": ["event.send"]},
}}}

_staff := fixtures.user("@s:acme.example", "acme.example", ["staff"])

_ghost(bridge) := object.union(fixtures.ghost, {"bridge": {"id": bridge}, "id": sprintf("@%s_x:acme.example", [bridge])})

_permitted(subject, point) := answer if {
	answer := bridges.permitted with data.config as _settings with input as {
		"tenant": {"name": "acme.example"}, "point": point, "subject": subject,
	}
}

_contact(subject, target) := answer if {
	answer := bridges.contact with data.config as _settings with input as {
		"tenant": {"name": "acme.example"}, "point": "contact", "subject": subject, "target": target,
	}
}

test_people_are_no_bridges if _permitted(fixtures.ann, "room.invite") == true

test_bridge_does_what_is_listed if {
	_permitted(_ghost("irc"), "event.send") == true
	_permitted(_ghost("irc"), "room.invite") == false
}

test_bridge_bot_is_bound_too if {
	bot := object.union(_ghost("irc"), {"kind": "bridge"})
	_permitted(bot, "event.send") == true
	_permitted(bot, "room.invite") == false
}

test_bridge_without_entry_does_nothing if _permitted(_ghost("new"), "event.send") == false

test_empty_list_permits_nothing if _permitted(_ghost("mail"), "event.send") == false

test_ghost_without_bridge_does_nothing if _permitted(object.remove(fixtures.ghost, ["bridge"]), "event.send") == false

test_unknown_kind_does_nothing if _permitted(object.union(fixtures.ann, {"kind": "Ghost"}), "event.send") == false

test_ghosts_of_other_tenants_are_their_users if {
	foreign := object.union(fixtures.ghost, {"tenant": "globex.example"})
	_permitted(foreign, "event.receive") == true
}

test_contact_by_pool_both_ways if {
	_contact(_staff, _ghost("irc")) == true
	_contact(_ghost("irc"), _staff) == true
	_contact(fixtures.ann, _ghost("irc")) == false
	_contact(_ghost("irc"), fixtures.ann) == false
}

test_contact_with_everyone if _contact(fixtures.ann, _ghost("mail")) == true

test_contact_that_is_not_set_is_closed if _contact(_staff, _ghost("mute")) == false

test_ghosts_of_one_bridge_meet if _contact(_ghost("irc"), _ghost("irc")) == true

test_ghosts_of_two_bridges_do_not_meet if {
	# A room bridged on both sides would carry messages from one network to the other.
	_contact(_ghost("irc"), _ghost("mail")) == false
	_contact(_ghost("mail"), _ghost("irc")) == false
}

test_partners_reach_ghosts_only_where_that_is_set if {
	_contact(fixtures.gus, _ghost("irc")) == false
	_contact(fixtures.gus, _ghost("mail")) == true
}

test_people_need_no_bridge if _contact(fixtures.ann, fixtures.sam) == true
