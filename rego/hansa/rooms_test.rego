package hansa.rooms_test

import data.hansa.fixtures
import data.hansa.rooms

_tenant(rules) := {"acme.example": {"rooms": rules}}

_operator(rules) := {"operator": {"rooms": rules}}

_create(room) := fixtures.ask("room.create", {"subject": fixtures.sam, "room": room})

_state(type, value) := fixtures.ask("room.state", {
	"subject": fixtures.sam,
	"room": {"public": true, "join_rule": "public"},
	"event": {"type": type, "value": value},
})

test_rules_about_people if {
	rooms.create with input as _create({}) with data.config as {}
	rooms.publish with input as _create({}) with data.config as {}
	rooms.alias with input as _create({}) with data.config as {}
	rooms.invite with input as _create({}) with data.config as {}
	rooms.create == false with input as _create({}) with data.config as _tenant({"create": "nobody"})
	rooms.create == false with input as _create({}) with data.config as _tenant({"create": {"pools": []}})
	rooms.create with input as _create({}) with data.config as _tenant({"create": {"pools": ["sales"]}})
	rooms.create == false with input as _create({}) with data.config as _operator({"create": "nobody"})
	rooms.publish == false with input as _create({}) with data.config as _tenant({"publish": "nobody"})
	rooms.alias == false with input as _create({}) with data.config as _tenant({"alias": "nobody"})
	rooms.invite == false with input as _create({}) with data.config as _tenant({"invite": "nobody"})
}

test_rules_about_people_bind_own_people_only if {
	question := fixtures.ask("room.invite", {"subject": fixtures.gus})
	rooms.invite with input as question with data.config as _tenant({"invite": "nobody"})
	rooms.invite == false with input as question with data.config as _operator({"invite": "nobody"})
}

test_public_rooms if {
	rooms.public with input as _create({"join_rule": "public"}) with data.config as {}
	rooms.public == false with input as _create({"join_rule": "public"}) with data.config as _tenant({"public": "nobody"})
	rooms.public == false with input as _create({"join_rule": "invite", "public": true}) with data.config as _tenant({"public": "nobody"})
	rooms.public with input as _create({"join_rule": "invite"}) with data.config as _tenant({"public": "nobody"})
}

test_opening_a_room_later if {
	rooms.public == false with input as _state("m.room.join_rules", "public") with data.config as _tenant({"public": "nobody"})
	rooms.public with input as _state("m.room.join_rules", "invite") with data.config as _tenant({"public": "nobody"})
	rooms.public with input as _state("m.room.topic", "") with data.config as _tenant({"public": "nobody"})
}

test_join_rules if {
	rooms.join_rule with input as _create({"join_rule": "knock"}) with data.config as {}
	rooms.join_rule == false with input as _create({"join_rule": "knock"}) with data.config as _tenant({"join_rules": ["invite"]})
	rooms.join_rule == false with input as _state("m.room.join_rules", "knock") with data.config as _tenant({"join_rules": ["invite"]})
	rooms.join_rule == false with input as _state("m.room.join_rules", "invite") with data.config as _tenant({"join_rules": []})
	rooms.join_rule with input as _state("m.room.topic", "knock") with data.config as _tenant({"join_rules": ["invite"]})
}

test_history_visibility if {
	rooms.history with input as _create({"history_visibility": "shared"}) with data.config as {}
	rooms.history == false with input as _create({"history_visibility": "world_readable"}) with data.config as {}
	rooms.history with input as _create({"history_visibility": "world_readable"})
		with data.config as _tenant({"history_visibility": ["world_readable"]})
	rooms.history == false with input as _create({"history_visibility": "shared"})
		with data.config as _tenant({"history_visibility": ["joined"]})
	rooms.history == false with input as _state("m.room.history_visibility", "world_readable") with data.config as {}
	rooms.history == false with input as _create({"history_visibility": "shared"})
		with data.config as _operator({"history_visibility": ["joined"]})
	rooms.history == false with input as _create({"history_visibility": "everybody"}) with data.config as {}
}

test_versions if {
	rooms.version with input as _create({"version": "12"}) with data.config as {}
	rooms.version == false with input as _create({"version": "5"}) with data.config as _tenant({"versions": ["11", "12"]})
	rooms.version == false with input as fixtures.ask("room.upgrade", {"room": {"version": "11"}, "event": {"value": "5"}})
		with data.config as _tenant({"versions": ["11", "12"]})
	rooms.version with input as fixtures.ask("room.upgrade", {"room": {"version": "5"}, "event": {"value": "12"}})
		with data.config as _tenant({"versions": ["11", "12"]})
}

test_types if {
	rooms.type with input as _create({"type": "m.space"}) with data.config as {}
	rooms.type == false with input as _create({"type": "m.space"}) with data.config as _tenant({"types": []})
	rooms.type with input as _create({"type": ""}) with data.config as _tenant({"types": []})
}

test_size if {
	rooms.size with input as _create({"members": 9}) with data.config as _tenant({"max_members": 10})
	rooms.size == false with input as _create({"members": 10}) with data.config as _tenant({"max_members": 10})
	rooms.size == false with input as _create({"members": 10}) with data.config as _operator({"max_members": 10})
	rooms.size == false with input as _create({}) with data.config as _tenant({"max_members": 10})
	rooms.size == false with input as _create({"members": 1}) with data.config as _tenant({"max_members": "10"})
}

_enter(newcomer, room) := fixtures.ask("room.join", {"subject": newcomer, "room": room})

test_internal_room if {
	internal := {"tenant": "acme.example", "federate": false}
	rooms.federation with input as _enter(fixtures.ann, internal) with data.config as {}
	rooms.federation == false with input as _enter(fixtures.gus, internal) with data.config as {}
	rooms.federation == false with data.config as {}
		with input as fixtures.ask("room.invite", {"subject": fixtures.ann, "target": fixtures.gus, "room": internal})
}

test_federating_room if {
	shared := {"tenant": "acme.example", "federate": true}
	rooms.federation with input as _enter(fixtures.gus, shared) with data.config as {}
	rooms.federation == false with input as _enter(fixtures.gus, shared) with data.config as _tenant({"federate": "never"})
	rooms.federation == false with input as _enter(fixtures.gus, shared) with data.config as _operator({"federate": "never"})
	rooms.federation with input as _enter(fixtures.ann, shared) with data.config as _tenant({"federate": "never"})
}

test_a_tenant_that_never_federates_enters_no_foreign_room if {
	rooms.federation == false with input as _enter(fixtures.ann, {"tenant": "globex.example", "federate": true})
		with data.config as _tenant({"federate": "never"})
}

test_obligations if {
	rooms.obligations == {} with input as _create({}) with data.config as {}
	rooms.obligations == {"federate": false} with input as _create({}) with data.config as _tenant({"federate": "never"})
}

test_readable if {
	rooms.readable with input as {"room": {"membership": "join"}}
	rooms.readable with input as {"room": {"membership": "", "contact": {"allow": true}}}
	rooms.readable == false with input as {"room": {"membership": "invite", "contact": {"allow": false}}}
	rooms.readable == false with input as {"room": {"membership": ""}}
	rooms.readable == false with input as {}
}

test_removal if {
	rooms.removal with input as {"subject": fixtures.ann}
	rooms.removal == false with input as {"subject": fixtures.rem}
	rooms.removal == false with input as {"subject": fixtures.rem, "agreements": {}}
	rooms.removal with input as {"subject": fixtures.rem, "agreements": {"incoming": fixtures.one_sided}}
	rooms.removal == false with input as {"subject": fixtures.rem, "agreements": {"incoming": {"state": "ended"}}}
}

_partners := {"acme.example": {"rooms": {"partner_history": ["joined", "shared"]}}}

test_partners_enter_rooms_that_can_be_made_to_hide_their_past if {
	every visibility in ["joined", "invited", "shared", "world_readable", "", null] {
		rooms.partner_history with input as _enter(fixtures.rem, {"history_visibility": visibility}) with data.config as {}
	}
	nothing := {"operator": {"rooms": {"partner_history": []}}}
	rooms.partner_history == false with input as _enter(fixtures.rem, {"history_visibility": "joined"}) with data.config as nothing
	rooms.partner_history with input as _enter(fixtures.ann, {"history_visibility": "shared"}) with data.config as nothing
	never_both := {"operator": {"rooms": {"partner_history": ["invited"]}}, "acme.example": _partners["acme.example"]}
	rooms.partner_history == false with input as _enter(fixtures.rem, {"history_visibility": "joined"}) with data.config as never_both
}

test_what_a_room_shows_when_partners_enter if {
	hidden := {"history_visibility": "invited"}
	every visibility in ["shared", "world_readable", "", null] {
		rooms.partner_obligations == hidden with input as _enter(fixtures.rem, {"history_visibility": visibility}) with data.config as {}
		rooms.partner_obligations == hidden with data.config as {}
			with input as fixtures.ask("room.invite", {"subject": fixtures.ann, "target": fixtures.gus, "room": {"history_visibility": visibility}})
	}
	every visibility in ["joined", "invited"] {
		rooms.partner_obligations == {} with input as _enter(fixtures.rem, {"history_visibility": visibility}) with data.config as {}
	}
	rooms.partner_obligations == {} with input as _enter(fixtures.ann, {"history_visibility": "shared"}) with data.config as {}
	rooms.partner_obligations == {} with input as _enter(fixtures.rem, {"history_visibility": "shared"}) with data.config as _partners
	asked := _enter(fixtures.rem, {"history_visibility": "world_readable"})
	rooms.partner_obligations == {"history_visibility": "shared"} with input as asked with data.config as _partners
	strict := {"operator": {"rooms": {"partner_history": ["joined"]}}, "acme.example": _partners["acme.example"]}
	rooms.partner_obligations == {"history_visibility": "joined"} with input as asked with data.config as strict
}

test_new_rooms_with_partners if {
	room := {"history_visibility": "shared", "servers": ["acme.example", "globex.example"]}
	rooms.obligations == {"history_visibility": "invited"} with input as _create(room) with data.config as {}
	rooms.obligations == {} with input as _create(room) with data.config as _partners
	rooms.obligations == {} with input as _create(object.union(room, {"history_visibility": "joined"})) with data.config as {}
	rooms.obligations == {} with input as _create(object.union(room, {"servers": ["acme.example"]})) with data.config as {}
}

test_rooms_with_other_servers if {
	rooms.server_obligations == {"history_visibility": "invited"} with input as {"tenant": {"name": "acme.example"}} with data.config as {}
	rooms.server_obligations == {"history_visibility": "shared"} with input as {"tenant": {"name": "acme.example"}} with data.config as _partners
}

test_the_past_stays_hidden_from_partners if {
	change := {
		"tenant": {"name": "acme.example"},
		"event": {"type": "m.room.history_visibility", "state_key": "", "value": "shared"},
		"room": {"servers": ["acme.example", "remote.example"]},
	}
	rooms.partner_history_kept == false with input as change with data.config as {}
	rooms.partner_history_kept with input as change with data.config as _partners
	own := object.union(change, {"room": {"servers": ["acme.example"]}})
	rooms.partner_history_kept with input as own with data.config as {}
	joined := object.union(change, {"event": {"value": "joined"}})
	rooms.partner_history_kept with input as joined with data.config as {}
	topic := object.union(change, {"event": {"type": "m.room.topic"}})
	rooms.partner_history_kept with input as topic with data.config as {}
}
