# METADATA
# title: Office hours
# description: |
#   Reasons against acting outside the hours of a tenant, `custom.office_hours`: {from, to, days, exempt}. A tenant without
#   that key is not concerned. Hours that cannot be read are never open, so that a mistake is noticed.
package operator.packs.office_hours

import data.hansa.lib.clock
import data.hansa.lib.who

_hours := data.config[input.tenant.name].custom.office_hours

reasons contains {"code": "office_hours", "message": "This is possible in office hours only."} if {
	_hours
	_open == false
	_exempt == false
}

default _open := false

_open if {
	clock.between(input.time, _hours.from, _hours.to, input.tenant.timezone)
	clock.on_day(input.time, object.get(_hours, "days", ["mon", "tue", "wed", "thu", "fri"]), input.tenant.timezone)
}

default _exempt := false

_exempt if who.matches(_hours.exempt, input.subject)
