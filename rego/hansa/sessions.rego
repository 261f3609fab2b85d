# METADATA
# title: Sessions
# description: |
#   Who may log in, from which networks and when: section `sessions` of the tenant and of the operator. Asked at login and
#   at every refresh of a token.
package hansa.sessions

import data.hansa.lib.clock
import data.hansa.lib.networks
import data.hansa.lib.settings
import data.hansa.lib.who

_tenant := object.get(settings.tenant, "sessions", {})

_operator := object.get(settings.operator, "sessions", {})

# METADATA
# description: The person is among those who may log in.
default people := false

people if {
	who.matches(object.get(_tenant, "login", "everyone"), input.subject)
	who.matches(object.get(_operator, "login", "everyone"), input.subject)
}

# METADATA
# description: The request comes from a permitted network.
default network := false

network if {
	_network_permitted(_tenant)
	_network_permitted(_operator)
}

# METADATA
# description: The time lies in the permitted hours and days.
default hours := false

hours if {
	_time_permitted(_tenant)
	_time_permitted(_operator)
}

default _network_permitted(_) := false

_network_permitted(rules) if object.get(rules, "networks", "any") == "any"

_network_permitted(rules) if networks.any_contains(rules.networks, input.request.ip)

_network_permitted(rules) if who.matches(object.get(rules, "exempt", "nobody"), input.subject)

default _time_permitted(_) := false

_time_permitted(rules) if object.get(rules, "hours", "any") == "any"

_time_permitted(rules) if {
	zone := object.get(rules.hours, "timezone", input.tenant.timezone)
	clock.between(input.time, rules.hours.from, rules.hours.to, zone)
	_day_permitted(rules.hours, zone)
}

_time_permitted(rules) if who.matches(object.get(rules, "exempt", "nobody"), input.subject)

default _day_permitted(_, _) := false

_day_permitted(rules, _) if object.get(rules, "days", "any") == "any"

_day_permitted(rules, zone) if clock.on_day(input.time, rules.days, zone)
