# METADATA
# title: Only cleared people are invited into classified rooms
package tenants["ministry.example"].room.invite

import data.tenants["ministry.example"].clearance

deny contains {"code": "clearance", "message": "This room needs a higher clearance."} if {
	clearance.cleared(input.target, input.room.labels) == false
}
