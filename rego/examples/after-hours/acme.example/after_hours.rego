# METADATA
# title: Sales may not invite suppliers in the evening
package tenants["acme.example"].room.invite

import data.hansa.lib.clock

deny contains {"code": "after_hours", "message": "Suppliers can be invited from 6:00 to 18:00."} if {
	"sales" in input.subject.pools
	"suppliers" in input.target.pools
	not clock.between(input.time, "06:00", "18:00", input.tenant.timezone)
}
