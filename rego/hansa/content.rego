# METADATA
# title: Content
# description: |
#   What may be written and uploaded: section `content` of the tenant and of the operator. Types and sizes are judged for
#   own and for foreign people alike; message types and file types inside encrypted events cannot be seen.
package hansa.content

import data.hansa.lib.patterns
import data.hansa.lib.settings

_clear_message_types := {"m.room.message", "m.sticker", "m.poll.start", "org.matrix.msc3381.poll.start"}

_algorithms := {"m.megolm.v1.aes-sha2", "m.megolm.v2.aes-sha2"}

# METADATA
# description: The event type is permitted.
default type := false

type if {
	every scope in settings.both { patterns.permits(_rules(scope, "types"), input.event.type) }
}

# METADATA
# description: The message type is permitted. Events without one are not messages in the clear.
default msgtype := false

msgtype if object.get(input.event, "msgtype", "") == ""

msgtype if {
	every scope in settings.both { patterns.permits(_rules(scope, "msgtypes"), input.event.msgtype) }
}

# METADATA
# description: The type of the attached or uploaded file is permitted.
default mimetype := false

mimetype if object.get(_carrier, "mimetype", "") == ""

mimetype if {
	every scope in settings.both { patterns.permits(_rules(scope, "mimetypes"), lower(_carrier.mimetype)) }
}

# METADATA
# description: The event is no larger than allowed.
default size := false

size if {
	every scope in settings.both { _fits(scope, "max_bytes", input.event) }
}

# METADATA
# description: The uploaded file is no larger than allowed.
default upload_size := false

upload_size if {
	every scope in settings.both { _fits(scope, "max_upload_bytes", input.media) }
}

# METADATA
# description: |
#   The event follows the rule on encryption. Where it is required, messages in the clear are refused; where it is
#   forbidden, encrypted events and switching it on. Encryption that is on can never be replaced by something weaker.
default encryption := false

encryption if {
	_algorithm_known
	every scope in settings.both { _encryption_follows(_encryption(scope)) }
}

# METADATA
# description: The room to be created follows the rule on encryption.
default room_encryption := false

room_encryption if {
	every scope in settings.both { _creation_follows(_encryption(scope)) }
}

# METADATA
# description: Obligations for a new room, its encryption where that is required or forbidden.
room_obligations := {"encryption": rule |
	some scope in settings.both
	rule := _encryption(scope)
	rule in {"required", "forbidden"}
}

_rules(scope, name) := object.get(scope, ["content", name], {})

_encryption(scope) := object.get(scope, ["content", "encryption"], "optional")

default _carrier := {}

_carrier := input.media if input.point == "media.upload"

_carrier := input.event if input.point != "media.upload"

default _fits(_, _, _) := false

_fits(scope, name, _) if object.get(scope, ["content", name], "unlimited") == "unlimited"

_fits(scope, name, thing) if {
	is_number(scope.content[name])
	is_number(thing.size)
	thing.size <= scope.content[name]
}

default _algorithm_known := false

_algorithm_known if input.event.type != "m.room.encryption"

_algorithm_known if input.event.value in _algorithms

default _encryption_follows(_) := false

_encryption_follows("optional")

_encryption_follows("required") if _encrypted

_encryption_follows("required") if count({input.event.type} & _clear_message_types) == 0

_encryption_follows("forbidden") if {
	_clear
	input.event.type != "m.room.encryption"
}

default _encrypted := false

_encrypted if input.event.type == "m.room.encrypted"

_encrypted if input.event.encrypted == true

default _clear := false

_clear if {
	input.event.type != "m.room.encrypted"
	object.get(input.event, "encrypted", false) == false
}

default _creation_follows(_) := false

_creation_follows("optional")

_creation_follows("required")

_creation_follows("forbidden") if object.get(input.room, "encrypted", false) == false
