package hansa.lib.verdict_test

import data.hansa.lib.verdict

test_denied_is_never_allowed if {
	every checks in [{}, {"whitelist.subject": true}, {"whitelist.subject": false}] { verdict.denied(checks).allow == false }
}

test_reason_of_a_failed_check if {
	some reason in verdict.denied({"whitelist.subject": true, "contact.pair": false}).reasons
	reason.code == "no_contact"
	reason.rule == "hansa.contact.pair"
	reason.message != ""
}

test_every_reason_is_collected if {
	count(verdict.denied({"whitelist.subject": false, "contact.pair": false, "rooms.size": true}).reasons) == 2
}

test_anything_but_true_is_a_failure if {
	every odd in [null, 0, 1, "true", "false", [], {}, [true], {"allow": true}] {
		count(verdict.denied({"contact.pair": odd}).reasons) == 1
	}
}

test_unknown_check_has_a_reason_too if {
	some reason in verdict.denied({"no.such.check": false}).reasons
	reason.code == "refused"
}

test_a_denial_obliges_to_nothing if verdict.denied({"contact.pair": false}).obligations == {}
