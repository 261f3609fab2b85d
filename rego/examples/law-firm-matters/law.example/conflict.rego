# METADATA
# title: Teams of conflicting matters do not meet
# description: |
#   Asked for every pair of people, so that one rule closes invitations, direct chats, the directory, profiles, presence
#   and keys at once. It reads attributes only: contact is decided per class of people, never per person or room.
package tenants["law.example"].contact

_conflicts := data.config["law.example"].custom.conflicts

deny contains {"code": "conflict", "message": "These matters are kept apart."} if {
	theirs := input.target.attributes.matter
	theirs in _conflicts[input.subject.attributes.matter]
}

deny contains {"code": "conflict", "message": "These matters are kept apart."} if {
	ours := input.subject.attributes.matter
	ours in _conflicts[input.target.attributes.matter]
}
