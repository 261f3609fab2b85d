# METADATA
# title: Contact
# description: |
#   The answers of the contact matrix that come with an input: `contact.allow` for subject reaching target, `reverse` for
#   the other way round, `room.contact.allow` for the newcomer of a room with everybody who is in it. An answer that is
#   missing is a refusal.
package hansa.contact

import data.hansa.lib.settings
import data.hansa.subjects

# METADATA
# description: Subject may reach target.
default pair := false

pair if subjects.self

pair if input.contact.allow == true

# METADATA
# description: One of the two may reach the other. Enough for what follows a conversation that is under way.
default either := false

either if pair == true

either if input.contact.reverse == true

# METADATA
# description: The newcomer of the room may be with everybody in it.
default room := false

room if input.room.contact.allow == true

# METADATA
# description: The same for people who are in the room already, where the tenant may choose to keep mixed rooms usable.
default room_in_use := false

room_in_use if room == true

room_in_use if {
	settings.tenant.rooms.mixed == "keep"
	input.room.membership == "join"
}

# METADATA
# description: |
#   The same for people who are in the room already and set the list of servers that may take part in it: that is how
#   somebody who may not be there is kept out.
default room_in_order := false

room_in_order if input.room.contact.allow == true

room_in_order if room_in_use == true

room_in_order if _server_acl

# METADATA
# description: The newcomer of the room may be with everybody in it, or somebody of another domain sets that list.
default room_or_order := false

room_or_order if room == true

room_or_order if _server_acl

default _server_acl := false

_server_acl if {
	input.event.type == "m.room.server_acl"
	input.event.state_key == ""
}

# METADATA
# description: For what is sent into a room; where a single recipient is named, that one.
default recipient := false

recipient if {
	object.get(input, "target", "none") == "none"
	room_in_use == true
}

recipient if {
	input.target.id != ""
	either == true
}

# METADATA
# description: Subject may know of the one who uploaded a file, where that is known.
default uploader := false

uploader if object.get(input, "target", "none") == "none"

uploader if {
	input.target.id != ""
	either == true
}

# METADATA
# description: The same as room for people. A server asks for all of its people at once; each is judged when it acts.
default room_or_server := false

room_or_server if room == true

room_or_server if input.subject.kind == "server"
