package hansa.lib.verdict_test

import data.hansa.lib.verdict

test_all_true_allows if {
	verdict.of({"whitelist.subject": true, "contact.pair": true}) == {"allow": true, "reasons": set(), "obligations": {}}
}

test_one_false_denies_with_reason if {
	answer := verdict.of({"whitelist.subject": true, "contact.pair": false})
	answer.allow == false
	some reason in answer.reasons
	reason.code == "no_contact"
	reason.rule == "hansa.contact.pair"
	reason.message != ""
}

test_every_reason_is_collected if count(verdict.of({"whitelist.subject": false, "contact.pair": false}).reasons) == 2

test_no_checks_deny if verdict.of({}).allow == false

test_only_true_passes if {
	every odd in [null, 0, 1, "true", "false", [], {}, [true], {"allow": true}] {
		answer := verdict.of({"whitelist.subject": true, "contact.pair": odd})
		answer.allow == false
		count(answer.reasons) == 1
	}
}

test_unknown_check_has_a_reason_too if {
	some reason in verdict.of({"no.such.check": false}).reasons
	reason.code == "refused"
}

test_obligations_are_passed_on if verdict.binding({"whitelist.subject": true}, {"federate": false}).obligations == {"federate": false}
