# METADATA
# title: Clearance for classified rooms
# description: |
#   A room may be labelled with a classification, a person has the attribute `clearance`. The levels stand in settings.yaml.
#   A label or a clearance that is not in the table counts as the strictest label and as no clearance.
package tenants["ministry.example"].clearance

_levels := data.config["ministry.example"].custom.clearance

_strictest := max([level | some level in _levels])

# METADATA
# description: True when the person is cleared for every label of the room.
default cleared(_, _) := false

cleared(person, labels) if {
	own := object.get(_levels, object.get(person.attributes, "clearance", ""), 0)
	every label in labels { object.get(_levels, label, _strictest) <= own }
}
