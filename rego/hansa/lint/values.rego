# METADATA
# title: Kinds of values
# description: The kinds of values that settings have, how each is recognised and how it is described to an admin.
package hansa.lint.values

import data.hansa.lib.sets

# METADATA
# description: What an admin should have written.
expected := {
	"bridge_contact": "must be everyone or a list of pools",
	"contact": "must be open, closed or {with: [pool, ...]}",
	"count": "must be a whole number, 0 or more",
	"direction": "must be both, outbound or inbound",
	"domains": "must be a list of server names, each exact (corp.example) or all below one (*.corp.example), or *",
	"encryption": "must be required, forbidden or optional",
	"features": "must be \"*\" or a list of messages, media, presence, profiles, directory, calls",
	"federate": "must be agreed or never",
	"flag": "must be true or false",
	"history": "must be a list of invited, joined, shared, world_readable",
	"instant": "must be a date such as 2027-01-31 or a time such as 2027-01-31T18:00:00Z, in quotes",
	"hours": "must be {from: \"HH:MM\", to: \"HH:MM\"} with optional days: [mon, ...] and timezone",
	"join_rules": "must be a list of invite, knock, knock_restricted, private, public, restricted",
	"mixed": "must be block or keep",
	"networks": "must be a list of networks such as 10.0.0.0/8",
	"pairs": "must be \"*\" or a list of {ours: pool, theirs: pool}",
	"points": "must be a list of decision points",
	"roles": "must give each role a list of actions",
	"rules": "must be {allow: [...], deny: [...]} with one or both",
	"strangers": "must be stay or leave",
	"state": "must be proposed, active, suspended, ended or expired",
	"text": "must be a text",
	"user_ids": "must be a list of user ids of this tenant such as @ann:corp.example",
	"who": "must be everyone, nobody or an object with lists pools, roles, groups, users",
	"words": "must be a list of texts",
}

_words := {
	"direction": {"both", "outbound", "inbound"},
	"encryption": {"required", "forbidden", "optional"},
	"federate": {"agreed", "never"},
	"mixed": {"block", "keep"},
	"strangers": {"stay", "leave"},
	"state": {"proposed", "active", "suspended", "ended", "expired"},
}

_lists := {
	"history": {"invited", "joined", "shared", "world_readable"},
	"join_rules": {"invite", "knock", "knock_restricted", "private", "public", "restricted"},
}

_features := {"messages", "media", "presence", "profiles", "directory", "calls"}

_days := {"mon", "tue", "wed", "thu", "fri", "sat", "sun"}

# METADATA
# description: The decision points that a bridge can be permitted.
points := {
	"account.login", "account.manage", "account.register", "bridge.act", "directory.rooms", "directory.search", "event.redact",
	"event.send", "keys.claim", "keys.query", "keys.sign", "media.download", "media.upload", "presence.read", "presence.write",
	"profile.read", "profile.write", "receipt.send", "report.send", "room.alias", "room.create", "room.invite", "room.join",
	"room.knock", "room.moderate", "room.publish", "room.read", "room.state", "room.upgrade", "search.messages",
	"todevice.send", "typing.send", "url.preview",
}

# METADATA
# description: True when the value is one of the kind, in the folder of the tenant.
default valid(_, _, _) := false

valid(kind, value, _) if value in _words[kind]

valid(kind, value, _) if {
	is_array(value)
	every entry in value { entry in _lists[kind] }
}

valid("flag", value, _) if is_boolean(value)

valid("instant", value, _) if {
	is_string(value)
	regex.match(`^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2}))?$`, value)
}

valid("text", value, _) if _filled(value)

valid("count", value, _) if {
	is_number(value)
	value >= 0
	value == floor(value)
}

valid("words", value, _) if _texts(value)

valid("points", value, _) if {
	is_array(value)
	every entry in value { entry in points }
}

valid("domains", value, _) if {
	is_array(value)
	every entry in value { domain(entry) }
}

valid("networks", value, _) if {
	is_array(value)
	every entry in value { _network(entry) }
}

valid("user_ids", value, tenant) if {
	is_array(value)
	every entry in value { _user_id(entry, tenant) }
}

valid("rules", value, _) if {
	is_object(value)
	sets.within([key | some key, _ in value], ["allow", "deny"])
	every entries in value { _texts(entries) }
}

valid("who", value, _) if value in {"everyone", "nobody"}

valid("who", value, _) if {
	is_object(value)
	count(value) > 0
	sets.within([key | some key, _ in value], ["pools", "roles", "groups", "users"])
	every entries in value { _texts(entries) }
}

valid("contact", value, _) if value in {"open", "closed"}

valid("contact", value, _) if {
	is_object(value)
	object.keys(value) == {"with"}
	_texts(value["with"])
}

valid("bridge_contact", value, _) if value == "everyone"

valid("bridge_contact", value, _) if _texts(value)

valid("features", value, _) if value == "*"

valid("features", value, _) if {
	is_array(value)
	every entry in value { entry in _features }
}

valid("pairs", value, _) if value == "*"

valid("pairs", value, _) if {
	is_array(value)
	every entry in value {
		is_object(entry)
		object.keys(entry) == {"ours", "theirs"}
		_filled(entry.ours)
		_filled(entry.theirs)
	}
}

valid("roles", value, _) if {
	is_object(value)
	every actions in value { _texts(actions) }
}

valid("hours", value, _) if {
	is_object(value)
	sets.within([key | some key, _ in value], ["from", "to", "days", "timezone"])
	_time_of_day(value.from)
	_time_of_day(value.to)
	_filled(object.get(value, "timezone", "UTC"))
	_week(object.get(value, "days", ["mon"]))
}

# METADATA
# description: A server name, one with a leading "*.", or "*".
default domain(_) := false

domain("*")

domain(entry) if {
	is_string(entry)
	regex.match(`^(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?$`, entry)
}

domain(entry) if {
	is_string(entry)
	regex.match(`^\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?$`, entry)
}

default _filled(_) := false

_filled(value) if {
	is_string(value)
	value != ""
}

default _texts(_) := false

_texts(value) if {
	is_array(value)
	every entry in value { _filled(entry) }
}

default _network(_) := false

_network(entry) if {
	is_string(entry)
	net.cidr_is_valid(entry)
}

default _user_id(_, _) := false

_user_id(entry, tenant) if {
	is_string(entry)
	startswith(entry, "@")
	endswith(entry, concat("", [":", tenant]))
}

default _time_of_day(_) := false

_time_of_day(text) if {
	is_string(text)
	regex.match(`^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$`, text)
}

default _week(_) := false

_week(days) if {
	is_array(days)
	every day in days { day in _days }
}
