# METADATA
# title: Files outside the office need a verified device
package tenants["acme.example"].media.download

import data.hansa.lib.networks

deny contains {"code": "unverified_device", "message": "Verify this device to open files outside the office."} if {
	input.subject.tenant == input.tenant.name
	not _in_office
	not _verified
}

_in_office if networks.any_contains(data.config["acme.example"].custom.office, input.request.ip)

_verified if input.subject.device.verified == true
