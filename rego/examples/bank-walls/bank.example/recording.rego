# METADATA
# title: What traders write is recorded in full
# description: Allowed messages are recorded in short; for the trading floor and for compliance the whole input is kept.
package tenants["bank.example"].event.send

import data.hansa.lib.sets

obligations := {"record": "full", "retention": "seven_years"} if {
	sets.intersect(input.subject.pools, ["trading", "compliance"])
}
