# METADATA
# title: No room with both sides of the wall
# description: |
#   The pools keep advisers and traders apart person by person. A room that is marked for one side is closed to the
#   other even for people who are in no pool yet.
package tenants["bank.example"].room.join

_sides := {"advisory", "trading"}

deny contains {"code": "behind_the_wall", "message": "This room belongs to another side of the house."} if {
	some side in input.room.pools
	side in _sides
	not side in input.subject.pools
	not "compliance" in input.subject.pools
}
