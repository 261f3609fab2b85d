package hansa.contact_test

import data.hansa.contact
import data.hansa.fixtures

_two := {"subject": fixtures.ann, "target": fixtures.sam}

_answer(allow, reverse) := object.union(_two, {"contact": {"allow": allow, "reverse": reverse}})

test_pair if {
	contact.pair with input as _answer(true, false)
	contact.pair == false with input as _answer(false, true)
}

test_either if {
	contact.either with input as _answer(true, false)
	contact.either with input as _answer(false, true)
	contact.either == false with input as _answer(false, false)
}

test_missing_answer_refuses if {
	contact.pair == false with input as _two
	contact.either == false with input as _two
	contact.room == false with input as {"room": {}}
	contact.room_in_use == false with input as {"room": {"membership": "join"}} with data.config as {}
}

test_self_needs_no_answer if contact.pair with input as {"contact": {"self": true}}

test_room if {
	contact.room with input as {"room": {"contact": {"allow": true}}}
	contact.room == false with input as {"room": {"contact": {"allow": false}}}
}

_mixed := {"tenant": {"name": "acme.example"}, "room": {"contact": {"allow": false}, "membership": "join"}}

test_mixed_rooms_are_blocked if {
	contact.room_in_use == false with input as _mixed with data.config as {}
	contact.room_in_use == false with input as _mixed with data.config as {"acme.example": {"rooms": {"mixed": "block"}}}
}

test_mixed_rooms_can_be_kept_for_members if {
	contact.room_in_use with input as _mixed with data.config as {"acme.example": {"rooms": {"mixed": "keep"}}}
	contact.room_in_use == false with input as object.union(_mixed, {"room": {"membership": "invite"}})
		with data.config as {"acme.example": {"rooms": {"mixed": "keep"}}}
	contact.room == false with input as _mixed with data.config as {"acme.example": {"rooms": {"mixed": "keep"}}}
}

test_recipient_is_the_room_or_the_named_one if {
	contact.recipient with input as {"room": {"contact": {"allow": true}}}
	contact.recipient == false with input as object.union(_answer(false, false), {"room": {"contact": {"allow": true}}})
	contact.recipient with input as _answer(true, true)
}

test_uploader if {
	contact.uploader with input as {"subject": fixtures.ann}
	contact.uploader with input as _answer(false, true)
	contact.uploader == false with input as _answer(false, false)
	contact.uploader == false with input as _two
}

test_room_or_server if {
	contact.room_or_server with input as {"subject": fixtures.remote_server}
	contact.room_or_server == false with input as {"subject": fixtures.ann}
}
