# METADATA
# title: Ward rooms are read by people on duty
# description: |
#   The directory sets the attribute `duty` to "on" for the shift. A room with one of the labels in settings.yaml is
#   read by members on duty only; membership stays, so the room is there again with the next shift.
package tenants["hospital.example"].room.read

import data.hansa.lib.sets

deny contains {"code": "off_duty", "message": "This room can be read while you are on duty."} if {
	sets.intersect(input.room.labels, data.config["hospital.example"].custom.on_duty_labels)
	object.get(input.subject, ["attributes", "duty"], "off") != "on"
}
