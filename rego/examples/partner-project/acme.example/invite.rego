# METADATA
# title: Nobody of the partner is invited after the project
package tenants["acme.example"].room.invite

import data.tenants["acme.example"].project

deny contains project.reason if {
	project.partner in {input.subject.tenant, input.target.tenant}
	project.over
}
