# METADATA
# title: Nothing is sent to the partner after the project
package tenants["acme.example"].event.send

import data.tenants["acme.example"].project

deny contains project.reason if {
	project.partner in input.room.servers
	project.over
}
