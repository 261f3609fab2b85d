# METADATA
# title: The project with the partner ends
# description: |
#   After the end of the project nobody of the partner is invited any more and nothing is sent where the partner takes
#   part. The agreement itself may end later, so that people can still read.
package tenants["acme.example"].project

_project := data.config["acme.example"].custom.project

# METADATA
# description: True from the end of the project on, and also when a time cannot be compared.
default over := true

over := false if {
	time.parse_rfc3339_ns(input.time) < time.parse_rfc3339_ns(_project.ends)
}

# METADATA
# description: The reason that the points give.
reason := {"code": "project_over", "message": sprintf("The project with %s is over.", [_project.partner])}

# METADATA
# description: The partner of the project.
partner := _project.partner
