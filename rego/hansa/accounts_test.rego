package hansa.accounts_test

import data.hansa.accounts
import data.hansa.fixtures

test_own_account if {
	accounts.self with input as {"subject": fixtures.ann}
	accounts.self with input as {"subject": fixtures.ann, "target": fixtures.ann}
}

test_other_account if {
	accounts.self == false with input as {"subject": fixtures.ann, "target": fixtures.sam}
	accounts.self == false with input as {"subject": {"id": ""}, "target": {"id": ""}}
}
