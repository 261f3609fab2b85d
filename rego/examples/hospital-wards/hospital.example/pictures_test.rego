package tenants["hospital.example"].media.upload_test

import data.hansa.points.media.upload as library
import data.tenants["hospital.example"].media.upload

_ask(pools, mimetype) := {
	"point": "media.upload",
	"tenant": {"name": "hospital.example", "timezone": "UTC"},
	"subject": {"kind": "user", "id": "@a:hospital.example", "tenant": "hospital.example", "local": true, "listed": true, "pools": pools},
	"media": {"mimetype": mimetype, "size": 1000},
}

test_students if count(upload.deny) == 1 with input as _ask(["students"], "image/png")

test_staff if upload.deny == set() with input as _ask(["staff"], "image/png")

# The list of file types needs no Rego.
test_programs_are_refused if {
	answer := library.decision with input as _ask(["staff"], "application/x-msdownload")
	answer.allow == false
}

test_pictures_are_fine if {
	answer := library.decision with input as _ask(["staff"], "image/png")
	answer.allow == true
}
