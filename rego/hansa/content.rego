# METADATA
# title: Content
# description: |
#   What may be written and uploaded: section `content` of the tenant and of the operator. Types and sizes are judged for
#   own and for foreign people alike; message types and file types inside encrypted events cannot be seen. Each rule
#   first asks whether anything is set at all, the common case, which costs least when it is asked of the data directly.
package hansa.content

import data.hansa.lib.patterns
import data.hansa.lib.settings

_clear_message_types := {"m.room.message", "m.sticker", "m.poll.start", "org.matrix.msc3381.poll.start"}

_algorithms := {"m.megolm.v1.aes-sha2", "m.megolm.v2.aes-sha2"}

_tenant := object.get(settings.tenant, "content", {})

_operator := object.get(settings.operator, "content", {})

# METADATA
# description: The event type is permitted.
default type := false

type if {
	not data.config[input.tenant.name].content.types
	not data.config.operator.content.types
	input.event.type != ""
}

type if {
	patterns.permits(object.get(_tenant, "types", {}), input.event.type)
	patterns.permits(object.get(_operator, "types", {}), input.event.type)
}

# METADATA
# description: The message type is permitted. Events without one are not messages in the clear.
default msgtype := false

msgtype if {
	not data.config[input.tenant.name].content.msgtypes
	not data.config.operator.content.msgtypes
}

msgtype if object.get(input.event, "msgtype", "") == ""

msgtype if {
	patterns.permits(object.get(_tenant, "msgtypes", {}), input.event.msgtype)
	patterns.permits(object.get(_operator, "msgtypes", {}), input.event.msgtype)
}

# METADATA
# description: The type of the attached file is permitted.
default mimetype := false

mimetype if {
	not data.config[input.tenant.name].content.mimetypes
	not data.config.operator.content.mimetypes
}

mimetype if _mimetype_permitted(object.get(input.event, "mimetype", ""))

# METADATA
# description: The type of the uploaded file is permitted.
default upload_mimetype := false

upload_mimetype if {
	not data.config[input.tenant.name].content.mimetypes
	not data.config.operator.content.mimetypes
}

upload_mimetype if _mimetype_permitted(object.get(input.media, "mimetype", ""))

# METADATA
# description: Obligations for an event, the smaller of the limits that are set. The server holds the size against it.
event_obligations := {} if {
	not data.config[input.tenant.name].content.max_bytes
	not data.config.operator.content.max_bytes
} else := {"max_bytes": _smallest("max_bytes")}

# METADATA
# description: The same for an upload.
upload_obligations := {} if {
	not data.config[input.tenant.name].content.max_upload_bytes
	not data.config.operator.content.max_upload_bytes
} else := {"max_bytes": _smallest("max_upload_bytes")}

# METADATA
# description: |
#   The event follows the rule on encryption. Where it is required, messages in the clear are refused; where it is
#   forbidden, encrypted events and switching it on. Encryption that is on can never be replaced by something weaker.
default encryption := false

encryption if {
	not data.config[input.tenant.name].content.encryption
	not data.config.operator.content.encryption
	_algorithm_known
}

encryption if {
	_algorithm_known
	_encryption_follows(_encryption(_tenant))
	_encryption_follows(_encryption(_operator))
}

# METADATA
# description: The room to be created follows the rule on encryption.
default room_encryption := false

room_encryption if _encryption_unset

room_encryption if {
	_creation_follows(_encryption(_tenant))
	_creation_follows(_encryption(_operator))
}

default _encryption_unset := false

_encryption_unset if {
	not data.config[input.tenant.name].content.encryption
	not data.config.operator.content.encryption
}

# METADATA
# description: Obligations for a new room, its encryption where that is required or forbidden.
room_obligations := {} if {
	_encryption_unset
} else := {"encryption": rule |
	some scope in [_tenant, _operator]
	rule := _encryption(scope)
	rule in {"required", "forbidden"}
}

default _mimetype_permitted(_) := false

_mimetype_permitted("")

_mimetype_permitted(mimetype) if {
	patterns.permits(object.get(_tenant, "mimetypes", {}), lower(mimetype))
	patterns.permits(object.get(_operator, "mimetypes", {}), lower(mimetype))
}

_encryption(scope) := object.get(scope, "encryption", "optional")

_smallest(name) := min({limit | some scope in [_tenant, _operator]; limit := scope[name]})

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
