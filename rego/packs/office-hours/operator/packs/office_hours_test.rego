package operator.packs.office_hours_test

import data.operator.event.send
import data.operator.packs.office_hours
import data.operator.room.create
import data.operator.room.invite

_config := {"acme.example": {"custom": {"office_hours": {"from": "07:00", "to": "19:00", "exempt": {"roles": ["oncall"]}}}}}

_ask(time, roles) := {
	"time": time,
	"tenant": {"name": "acme.example", "timezone": "Europe/Berlin"},
	"subject": {"id": "@a:acme.example", "roles": roles},
}

_denied(time, roles) if {
	count(office_hours.reasons) == 1 with input as _ask(time, roles) with data.config as _config
}

test_monday_morning if not _denied("2026-03-02T09:00:00Z", [])

test_monday_night if _denied("2026-03-02T21:00:00Z", [])

test_sunday if _denied("2026-03-01T09:00:00Z", [])

test_people_on_call if not _denied("2026-03-02T21:00:00Z", ["oncall"])

test_each_point_asks if {
	every deny in [send.deny, create.deny, invite.deny] { count(deny) == 1 } with input as _ask("2026-03-02T21:00:00Z", []) with data.config as _config
}

test_tenants_without_hours_are_not_concerned if {
	office_hours.reasons == set() with input as _ask("2026-03-02T21:00:00Z", []) with data.config as {}
}

test_unreadable_hours_are_never_open if {
	broken := {"acme.example": {"custom": {"office_hours": {"from": "7", "to": "19:00"}}}}
	count(office_hours.reasons) == 1 with input as _ask("2026-03-02T09:00:00Z", []) with data.config as broken
}
