# METADATA
# title: Only cleared people join classified rooms
package tenants["ministry.example"].room.join

import data.tenants["ministry.example"].clearance

deny contains {"code": "clearance", "message": "This room needs a higher clearance."} if {
	clearance.cleared(input.subject, input.room.labels) == false
}
