# METADATA
# title: Shape of the settings
# description: Unknown keys, missing keys and values of the wrong kind.
package hansa.lint.shape

import data.hansa.lint.values

# METADATA
# description: The sections of a tenant and the kind of each key. Every other name at the top is a pool.
sections := {
	"admin": {"roles": "roles", "approval": "words"},
	"content": {
		"types": "rules", "msgtypes": "rules", "mimetypes": "rules",
		"max_bytes": "count", "max_upload_bytes": "count", "encryption": "encryption",
	},
	"domains": {"allow": "domains", "deny": "domains"},
	"previews": {"enabled": "flag", "allow": "domains", "deny": "domains"},
	"profiles": {"locked": "words", "write": "who"},
	"push": {"gateways": "domains", "content": "flag"},
	"rooms": {
		"create": "who", "public": "who", "publish": "who", "alias": "who", "invite": "who",
		"federate": "federate", "join_rules": "join_rules", "history_visibility": "history",
		"versions": "words", "types": "words", "max_members": "count", "mixed": "mixed", "partner_history": "history", "strangers": "strangers",
	},
	"sessions": {"login": "who", "networks": "networks", "hours": "hours", "exempt": "who"},
	"tenant": {"timezone": "text"},
	"whitelist": {"enabled": "flag", "users": "user_ids", "groups": "words"},
}

# METADATA
# description: Sections that hold one entry per name, and the kinds of keys of an entry.
collections := {
	"bridges": {"points": "points", "contact": "bridge_contact", "partners": "flag"},
	"partners": {"state": "state", "direction": "direction", "pools": "pairs", "features": "features", "valid_from": "instant", "valid_until": "instant"},
}

# METADATA
# description: Names at the top that hold whatever the rules of an admin need.
free := {"custom"}

# METADATA
# description: The names at the top of a tenant that are no pools. The name operator is kept for the folder.
reserved := (object.keys(sections) | object.keys(collections)) | free

# METADATA
# description: The keys of a pool.
pool := {"groups": "words", "users": "user_ids", "contact": "contact", "title": "text"}

# METADATA
# description: The sections that the operator's folder may have.
operator := {
	"admin": {"approval": "words"},
	"content": sections.content,
	"domains": sections.domains,
	"previews": sections.previews,
	"push": sections.push,
	"rooms": object.remove(sections.rooms, ["mixed"]),
	"sessions": sections.sessions,
}

_required := {"partners": ["pools", "features"], "bridges": ["points"]}

problems contains _problem([folder], "must be a folder with settings") if {
	some folder, settings in data.config
	not is_object(settings)
}

problems contains problem if {
	some tenant, settings in data.config
	tenant != "operator"
	some name, section in settings
	some problem in _problems([tenant, name], section, sections[name])
}

problems contains problem if {
	some tenant, settings in data.config
	tenant != "operator"
	some name, section in settings
	is_object(section)
	some entry_name, entry in section
	some problem in _problems([tenant, name, entry_name], entry, collections[name])
}

problems contains _problem([tenant, name], "must be a mapping") if {
	some tenant, settings in data.config
	tenant != "operator"
	some name, section in settings
	collections[name]
	not is_object(section)
}

problems contains _problem([tenant, name, entry_name, key], "is missing") if {
	some tenant, settings in data.config
	some name, keys in _required
	some entry_name, entry in settings[name]
	is_object(entry)
	some key in keys
	not key in object.keys(entry)
}

problems contains _problem([tenant, "operator"], "is not a name for a pool") if {
	some tenant, settings in data.config
	tenant != "operator"
	settings.operator
}

problems contains _problem([tenant, "partners", domain], "must be an exact server name") if {
	some tenant, settings in data.config
	some domain, _ in settings.partners
	not regex.match(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?$`, domain)
}

problems contains problem if {
	some tenant, settings in data.config
	tenant != "operator"
	some name, section in settings
	not name in reserved
	some problem in _problems([tenant, name], section, pool)
}

problems contains problem if {
	some name, section in data.config.operator
	not name in free
	some problem in _problems(["operator", name], section, operator[name])
}

problems contains _problem(["operator", name], message) if {
	some name, _ in data.config.operator
	not name in (object.keys(operator) | free)
	message := sprintf("has no meaning for the operator; known are %s", [_names(operator)])
}

# What is wrong with one mapping, given the kinds of its keys.
_problems(path, section, _) := {_problem(path, "must be a mapping")} if not is_object(section)

_problems(path, section, kinds) := unknown | wrong if {
	is_object(section)
	unknown := {_problem(array.concat(path, [key]), sprintf("is not known; known are %s", [_names(kinds)])) |
		some key, _ in section
		not key in object.keys(kinds)
	}
	wrong := {_problem(array.concat(path, [key]), values.expected[kinds[key]]) |
		some key, value in section
		not values.valid(kinds[key], value, path[0])
	}
}

_problem(path, message) := {"path": concat("/", path), "message": message}

_names(kinds) := concat(", ", sort([name | some name, _ in kinds]))
