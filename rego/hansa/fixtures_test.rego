# METADATA
# title: People, rooms and settings for the tests
# description: Two hosted tenants (acme, globex) and one server elsewhere (remote), with the settings that link them.
package hansa.fixtures

config := {
	"acme.example": {
		"research": {"contact": "closed"},
		"sales": {"contact": {"with": ["marketing"]}},
		"marketing": {"contact": {"with": ["sales"]}},
		"staff": {"contact": "open"},
		"previews": {"enabled": true},
		"bridges": {"irc": {
			"points": ["account.register", "bridge.act", "event.send", "room.join"],
			"contact": ["staff"],
		}},
	},
	"globex.example": {"lab": {"contact": "closed"}},
}

user(id, tenant, pools) := {
	"kind": "user", "id": id, "tenant": tenant, "local": true, "listed": true,
	"pools": pools, "groups": [], "attributes": {}, "roles": [],
}

remote_user(id, tenant) := {
	"kind": "user", "id": id, "tenant": tenant, "local": false,
	"pools": [], "groups": [], "attributes": {}, "roles": [],
}

# Nobody's pools, sales, research, and another researcher.
ann := user("@ann:acme.example", "acme.example", [])

sam := user("@sam:acme.example", "acme.example", ["sales"])

rita := user("@rita:acme.example", "acme.example", ["research"])

rob := user("@rob:acme.example", "acme.example", ["research"])

admin := object.union(ann, {"roles": ["admin"]})

# In the lab of the other tenant, and outside of it.
gil := user("@gil:globex.example", "globex.example", ["lab"])

gus := user("@gus:globex.example", "globex.example", [])

rem := remote_user("@rem:remote.example", "remote.example")

ghost := {
	"kind": "ghost", "id": "@irc_x:acme.example", "tenant": "acme.example", "local": true, "listed": true,
	"pools": [], "groups": [], "attributes": {}, "roles": [], "bridge": {"id": "irc"},
}

remote_server := {"kind": "server", "id": "remote.example", "tenant": "remote.example", "local": false}

record := {
	"state": "active",
	"mutual": true,
	"scope": {"direction": "both", "pools": "*", "features": "*"},
}

one_sided := object.union(record, {"mutual": false})

both_records := {"outgoing": record, "incoming": record}

room := {
	"id": "!r:acme.example", "version": "12", "type": "", "tenant": "acme.example", "creator": "@ann:acme.example",
	"join_rule": "invite", "history_visibility": "shared", "encrypted": false, "federate": true, "direct": false, "public": false,
	"membership": "join", "pools": [], "labels": [], "servers": ["acme.example"], "tenants": ["acme.example"], "members": 2,
	"contact": {"allow": true},
}

message := {"type": "m.room.message", "msgtype": "m.text", "size": 100, "encrypted": false}

base := {
	"schema": "hansa.policy/v1",
	"time": "2026-03-02T10:00:00Z",
	"tenant": {"name": "acme.example", "timezone": "Europe/Berlin"},
	"request": {"ip": "192.0.2.7", "user_agent": "test", "via": "client"},
}

# An input for acme with some parts.
ask(point, parts) := object.union(object.union(base, {"point": point}), parts)

_pair := {"subject": ann, "target": user("@bo:acme.example", "acme.example", []), "contact": {"allow": true, "reverse": true}}

_in_room := {"subject": ann, "room": room}

_foreign_server := {"name": "remote.example", "local": false, "agreement": one_sided}

# For each decision point an input that is allowed.
accepted := {point: ask(point, parts) |
	some point, parts in {
		"account.register": {"subject": {"kind": "anonymous", "id": "", "tenant": "acme.example", "local": true}, "target": ann},
		"account.login": {"subject": ann},
		"account.manage": {"subject": ann},
		"contact": {"subject": ann, "target": _pair.target},
		"federation.inbound": {"subject": remote_server, "server": _foreign_server},
		"federation.outbound": {"subject": remote_server, "server": _foreign_server},
		"event.serve": {"subject": remote_server, "server": _foreign_server, "room": room},
		"room.create": {"subject": ann, "room": room},
		"room.invite": object.union(_pair, {"room": room}),
		"room.join": _in_room,
		"room.knock": _in_room,
		"room.leave": {"subject": ann},
		"room.moderate": object.union(_pair, {"room": room}),
		"room.read": _in_room,
		"room.state": object.union(_in_room, {"event": {"type": "m.room.topic", "state_key": "", "size": 50, "encrypted": false, "value": ""}}),
		"room.publish": _in_room,
		"room.alias": _in_room,
		"room.upgrade": object.union(_in_room, {"event": {"type": "m.room.tombstone", "state_key": "", "size": 50, "value": "12"}}),
		"event.send": object.union(_in_room, {"event": message}),
		"event.receive": {"subject": rem, "room": room, "event": message, "server": _foreign_server},
		"event.redact": object.union(_in_room, {"event": {"type": "m.room.redaction", "own": true}}),
		"directory.search": _pair,
		"directory.rooms": _in_room,
		"profile.read": _pair,
		"profile.write": {"subject": ann, "target": ann, "account": {"field": "displayname"}},
		"presence.read": _pair,
		"presence.write": {"subject": ann},
		"typing.send": _in_room,
		"receipt.send": _in_room,
		"keys.query": _pair,
		"keys.claim": _pair,
		"keys.sign": _pair,
		"todevice.send": _pair,
		"media.upload": {"subject": ann, "media": {"size": 100, "mimetype": "image/png"}},
		"media.download": {"subject": ann, "media": {"server": "acme.example"}},
		"url.preview": {"subject": ann, "server": {"name": "news.example"}},
		"push.register": {"subject": ann, "server": {"name": "push.example"}},
		"search.messages": _in_room,
		"report.send": {"subject": ann},
		"admin.action": {"subject": admin, "admin": {"action": "user.lock", "tenant": "acme.example"}},
		"policy.change": {"subject": admin, "admin": {"action": "policy.activate", "tenant": "acme.example"}},
		"partner.change": {"subject": admin, "server": {"name": "remote.example"}, "admin": {"action": "partner.approve", "tenant": "acme.example"}},
		"bridge.act": {"subject": ghost},
	}
}

# The names of all points of the library.
points contains concat(".", [area, act]) if {
	some area, act
	data.hansa.points[area][act].decision
}

points contains "contact" if data.hansa.points.contact.decision

# The decision of one point for an input, with the settings of this file.
decide(point, question) := answer if {
	[area, act] := split(point, ".")
	answer := data.hansa.points[area][act].decision with input as question with data.config as config
}

decide("contact", question) := answer if {
	answer := data.hansa.points.contact.decision with input as question with data.config as config
}

codes(decision) := {reason.code | some reason in decision.reasons}
