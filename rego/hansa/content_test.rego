package hansa.content_test

import data.hansa.content

_message := {"type": "m.room.message", "msgtype": "m.text", "size": 100, "encrypted": false}

_secret := {"type": "m.room.encrypted", "size": 900, "encrypted": true}

_ask(event) := {"tenant": {"name": "acme.example"}, "point": "event.send", "event": event}

_tenant(rules) := {"acme.example": {"content": rules}}

_operator(rules) := {"operator": {"content": rules}}

test_without_settings_everything_passes if {
	every event in [_message, _secret] {
		content.type with input as _ask(event) with data.config as {}
		content.msgtype with input as _ask(event) with data.config as {}
		content.mimetype with input as _ask(event) with data.config as {}
		content.encryption with input as _ask(event) with data.config as {}
	}
}

test_types if {
	content.type == false with input as _ask(_message) with data.config as _tenant({"types": {"deny": ["m.room.message"]}})
	content.type == false with input as _ask(_message) with data.config as _tenant({"types": {"allow": []}})
	content.type == false with input as _ask({"type": "m.call.invite"}) with data.config as _tenant({"types": {"deny": ["m.call.*"]}})
	content.type == false with input as _ask(_message) with data.config as _operator({"types": {"deny": ["m.room.message"]}})
	content.type == false with input as _ask({}) with data.config as {}
}

test_msgtypes if {
	content.msgtype == false with input as _ask(_message) with data.config as _tenant({"msgtypes": {"allow": ["m.notice"]}})
	content.msgtype with input as _ask(_secret) with data.config as _tenant({"msgtypes": {"allow": ["m.notice"]}})
}

test_mimetypes if {
	rules := {"mimetypes": {"allow": ["image/*", "application/pdf"], "deny": ["image/svg+xml"]}}
	picture := object.union(_message, {"mimetype": "image/PNG"})
	drawing := object.union(_message, {"mimetype": "image/svg+xml"})
	program := object.union(_message, {"mimetype": "application/x-msdownload"})
	content.mimetype with input as _ask(picture) with data.config as _tenant(rules)
	content.mimetype == false with input as _ask(drawing) with data.config as _tenant(rules)
	content.mimetype == false with input as _ask(program) with data.config as _tenant(rules)
	content.mimetype == false with input as _ask(program) with data.config as _operator(rules)
}

test_mimetype_of_an_upload if {
	upload := {"tenant": {"name": "acme.example"}, "point": "media.upload", "media": {"mimetype": "text/html", "size": 10}}
	content.upload_mimetype == false with input as upload with data.config as _tenant({"mimetypes": {"deny": ["text/html"]}})
}

test_sizes_are_obligations if {
	content.event_obligations == {} with input as _ask(_message) with data.config as {}
	content.event_obligations == {"max_bytes": 100} with input as _ask(_message) with data.config as _tenant({"max_bytes": 100})
	content.event_obligations == {"max_bytes": 99} with input as _ask(_message) with data.config as _operator({"max_bytes": 99})
	content.upload_obligations == {"max_bytes": 9} with input as _ask(_message) with data.config as _tenant({"max_upload_bytes": 9})
	content.upload_obligations == {} with input as _ask(_message) with data.config as _tenant({"max_bytes": 9})
}

test_the_smaller_limit_counts if {
	both := {"acme.example": {"content": {"max_bytes": 100}}, "operator": {"content": {"max_bytes": 50}}}
	content.event_obligations == {"max_bytes": 50} with input as _ask(_message) with data.config as both
	both_turned := {"acme.example": {"content": {"max_bytes": 50}}, "operator": {"content": {"max_bytes": 100}}}
	content.event_obligations == {"max_bytes": 50} with input as _ask(_message) with data.config as both_turned
}

test_required_encryption if {
	rules := _tenant({"encryption": "required"})
	content.encryption == false with input as _ask(_message) with data.config as rules
	content.encryption with input as _ask(_secret) with data.config as rules
	content.encryption with input as _ask({"type": "m.reaction", "size": 10, "encrypted": false}) with data.config as rules
	content.encryption with input as _ask({"type": "m.room.topic", "size": 10}) with data.config as rules
}

test_forbidden_encryption if {
	rules := _tenant({"encryption": "forbidden"})
	content.encryption with input as _ask(_message) with data.config as rules
	content.encryption == false with input as _ask(_secret) with data.config as rules
	content.encryption == false with input as _ask({"type": "m.room.encrypted"}) with data.config as rules
	content.encryption == false with input as _ask({"type": "m.room.encryption", "value": "m.megolm.v1.aes-sha2"}) with data.config as rules
}

test_unknown_rule_on_encryption_permits_nothing if {
	content.encryption == false with input as _ask(_message) with data.config as _tenant({"encryption": "maybe"})
}

test_encryption_is_never_switched_off if {
	content.encryption with input as _ask({"type": "m.room.encryption", "value": "m.megolm.v1.aes-sha2"}) with data.config as {}
	every value in ["", "none", "m.megolm.v0", null] {
		content.encryption == false with input as _ask({"type": "m.room.encryption", "value": value}) with data.config as {}
	}
	content.encryption == false with input as _ask({"type": "m.room.encryption"}) with data.config as {}
}

_creation(encrypted) := {"tenant": {"name": "acme.example"}, "point": "room.create", "room": {"encrypted": encrypted}}

test_creation if {
	content.room_encryption with input as _creation(true) with data.config as {}
	content.room_encryption == false with input as _creation(true) with data.config as _tenant({"encryption": "forbidden"})
	content.room_encryption with input as _creation(false) with data.config as _tenant({"encryption": "forbidden"})
	content.room_encryption with input as _creation(false) with data.config as _tenant({"encryption": "required"})
}

test_creation_obliges if {
	content.room_obligations == {} with input as _creation(false) with data.config as {}
	content.room_obligations == {"encryption": "required"} with input as _creation(false)
		with data.config as _tenant({"encryption": "required"})
	content.room_obligations == {"encryption": "forbidden"} with input as _creation(false)
		with data.config as _operator({"encryption": "forbidden"})
}
