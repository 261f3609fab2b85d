package hansa.whitelist_test

import data.hansa.fixtures
import data.hansa.whitelist

_subject(user) if {
	whitelist.subject with input as {"subject": user}
}

_target(user) if {
	whitelist.target with input as {"target": user}
}

test_listed_person if {
	_subject(fixtures.ann)
	_target(fixtures.ann)
}

test_person_who_is_not_listed if {
	not _subject(object.union(fixtures.ann, {"listed": false}))
	not _target(object.union(fixtures.ann, {"listed": false}))
}

test_missing_answer_is_not_listed if not _subject(object.remove(fixtures.ann, ["listed"]))

test_odd_answers_are_not_listed if {
	every odd in ["true", 1, null, [], {}] { not _subject(object.union(fixtures.ann, {"listed": odd})) }
}

test_people_elsewhere_are_not_judged_here if _subject(fixtures.rem)

test_people_of_unknown_place_are_refused if not _subject(object.remove(fixtures.rem, ["local"]))

test_ghosts_are_judged_by_their_bridge if _subject(object.union(fixtures.ghost, {"listed": false}))

test_newcomer_must_be_listed if {
	whitelist.newcomer with input as {"subject": {"kind": "anonymous"}, "target": fixtures.ann}
	whitelist.newcomer == false with input as {
		"subject": {"kind": "anonymous"},
		"target": object.union(fixtures.ann, {"listed": false}),
	}
}

test_admin_may_make_accounts_that_are_not_listed_yet if {
	every maker in [fixtures.admin, {"kind": "operator"}] {
		whitelist.newcomer with input as {"subject": maker, "target": object.union(fixtures.ann, {"listed": false})}
	}
}
