package tenants["bank.example"].event.send_test

import data.tenants["bank.example"].event.send

test_traders_are_recorded if {
	send.obligations == {"record": "full", "retention": "seven_years"} with input as {"subject": {"pools": ["trading"]}}
}

test_others_are_not if not send.obligations with input as {"subject": {"pools": ["advisory"]}}
