package hansa.points_test

import data.hansa.fixtures

_all := object.keys(fixtures.accepted)

# The points that are about a server and not about a certain person.
_doors := {"federation.inbound", "federation.outbound"}

# These, and the one that works for everybody.
_open := _doors | {"room.leave"}

_allowed[point] := true if {
	some point, question in fixtures.accepted
	fixtures.decide(point, question).allow == true
}

# The points that still allow their accepted input after a change of the subject.
_allowed_for(change) := {point |
	some point, question in fixtures.accepted
	changed := object.union(question, {"subject": object.union(question.subject, change)})
	fixtures.decide(point, changed).allow == true
}

_allowed_without(parts) := {point |
	some point, question in fixtures.accepted
	fixtures.decide(point, object.remove(question, parts)).allow == true
}

_allowed_with(change) := {point |
	some point, question in fixtures.accepted
	fixtures.decide(point, object.union(question, change)).allow == true
}

test_every_point_is_covered_here if {
	known := fixtures.points with input as fixtures.accepted["room.invite"] with data.config as fixtures.config
	known == _all
}

test_accepted_inputs_are_allowed if {
	every point in _all {
		_allowed[point] == true
	}
}

test_allowed_means_no_reason_and_denied_means_a_reason if {
	every point, question in fixtures.accepted {
		every asked in [question, object.remove(question, ["subject", "server"]), object.remove(question, ["tenant"])] {
			_consistent(fixtures.decide(point, asked))
		}
	}
}

_consistent(answer) if {
	answer.allow == true
	answer.reasons == set()
}

_consistent(answer) if {
	answer.allow == false
	count(answer.reasons) > 0
}

test_answer_has_three_parts if {
	every point, question in fixtures.accepted {
		object.keys(fixtures.decide(point, question)) == {"allow", "reasons", "obligations"}
	}
}

test_empty_input_is_denied_everywhere if {
	every point in _all {
		fixtures.decide(point, {}).allow == false
	}
}

test_without_subject_only_the_door_answers if _allowed_without(["subject"]) == _doors

test_without_tenant_only_leaving_works if _allowed_without(["tenant"]) == {"room.leave"}

test_guests_are_refused_everywhere if _allowed_for({"kind": "guest"}) == _open

test_unknown_kinds_are_refused_everywhere if _allowed_for({"kind": "User"}) == _open

test_not_listed_is_refused_everywhere if {
	# Registration looks at the target, receiving at people elsewhere, a bridge at its entry.
	_allowed_for({"listed": false, "local": true}) == _open | {"account.register", "bridge.act", "event.serve"}
}

test_missing_listed_is_not_listed if {
	refused := {point |
		some point, question in fixtures.accepted
		question.subject.listed
		changed := object.union(object.remove(question, ["subject"]), {"subject": object.remove(question.subject, ["listed"])})
		fixtures.decide(point, changed).allow == false
	}
	refused == {point | some point, question in fixtures.accepted; question.subject.listed} - (_open | {"bridge.act"})
}

test_a_ghost_without_entry_does_nothing if {
	_allowed_for({"kind": "ghost", "bridge": {"id": "other"}, "local": true, "listed": true, "tenant": "acme.example"}) == _open
}

test_denied_contact_closes_every_pair_surface if {
	_all - _allowed_with({"contact": {"allow": false, "reverse": false}}) == {
		"room.invite", "directory.search", "profile.read", "presence.read",
		"keys.query", "keys.claim", "keys.sign", "todevice.send",
	}
}

test_missing_contact_is_denied_contact if {
	_all - _allowed_without(["contact"]) == {
		"room.invite", "directory.search", "profile.read", "presence.read",
		"keys.query", "keys.claim", "keys.sign", "todevice.send",
	}
}

test_reverse_contact_is_enough_to_answer if {
	_all - _allowed_with({"contact": {"allow": false, "reverse": true}}) == {"room.invite", "directory.search"}
}

test_mixed_room_closes_every_room_surface if {
	refused := {point |
		some point, question in fixtures.accepted
		question.room
		changed := object.union(question, {"room": {"contact": {"allow": false}}})
		fixtures.decide(point, changed).allow == false
	}
	refused == {
		"room.invite", "room.join", "room.knock", "room.state", "room.upgrade", "event.send", "event.receive",
		"event.redact", "directory.rooms", "typing.send", "receipt.send",
	}
}

test_mixed_room_is_not_readable_from_outside if {
	refused := {point |
		some point in {"room.read", "search.messages"}
		changed := object.union(fixtures.accepted[point], {"room": {"contact": {"allow": false}, "membership": "invite"}})
		fixtures.decide(point, changed).allow == false
	}
	refused == {"room.read", "search.messages"}
}

test_only_true_opens_a_room if {
	every odd in [null, 1, "true", [], {}, [true]] {
		changed := object.union(fixtures.accepted["event.send"], {"room": {"contact": {"allow": odd}}})
		fixtures.decide("event.send", changed).allow == false
	}
}

test_only_true_opens_contact if {
	every odd in [null, 1, "true", [], {}, [true]] {
		changed := object.union(fixtures.accepted["room.invite"], {"contact": {"allow": odd, "reverse": odd}})
		fixtures.decide("room.invite", changed).allow == false
	}
}

test_another_tenant_is_asked_in_vain_for_own_acts if {
	asked := {point |
		some point, question in fixtures.accepted
		changed := object.union(question, {"tenant": {"name": "globex.example"}})
		fixtures.decide(point, changed).allow == true
	}

	# What is left needs no tenant of its own, or is a question to the second tenant of a pair or a room.
	asked & {
		"account.login", "account.manage", "account.register", "room.create", "room.state", "room.publish", "room.alias",
		"room.upgrade", "event.send", "event.redact", "profile.write", "presence.write", "media.upload", "media.download",
		"url.preview", "push.register", "search.messages", "report.send", "admin.action", "policy.change", "partner.change",
		"bridge.act", "directory.rooms", "typing.send", "receipt.send", "event.receive",
		"event.serve", "federation.inbound", "federation.outbound",
	} == _doors | {"event.receive", "event.serve"}
}
