# METADATA
# title: Classified rooms stay inside
# description: Nothing is written into a classified room while a server of another domain takes part in it.
package tenants["ministry.example"].event.send

_inside := {"open"}

deny contains {"code": "classified", "message": "Another organisation takes part in this classified room."} if {
	some label in input.room.labels
	not label in _inside
	some server in input.room.servers
	server != input.tenant.name
}
