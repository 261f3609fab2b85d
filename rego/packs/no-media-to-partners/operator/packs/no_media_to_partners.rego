# METADATA
# title: No files to partners
# description: |
#   Reasons against handing the files of a tenant to people and servers of other domains, and against sending messages
#   that carry a file where another domain takes part, for tenants that set `custom.files_stay_inside: true`. Files inside
#   encrypted messages cannot be seen when they are sent; they are refused when the partner fetches them.
package operator.packs.no_media_to_partners

_file_messages := {"m.image", "m.file", "m.video", "m.audio"}

_wanted if data.config[input.tenant.name].custom.files_stay_inside == true

reasons contains {"code": "no_files", "message": "Files stay inside the organisation."} if {
	_wanted
	input.point == "media.download"
	input.media.server == input.tenant.name
	input.subject.tenant != input.tenant.name
}

reasons contains {"code": "no_files", "message": "Files cannot be sent where another organisation takes part."} if {
	_wanted
	input.point == "event.send"
	input.event.msgtype in _file_messages
	some server in input.room.servers
	server != input.tenant.name
}
