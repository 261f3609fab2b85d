package operator.packs.no_media_to_partners_test

import data.operator.event.send
import data.operator.media.download

_config := {"acme.example": {"custom": {"files_stay_inside": true}}}

_fetched(subject, origin) := {
	"point": "media.download",
	"tenant": {"name": "acme.example"},
	"subject": {"tenant": subject},
	"media": {"server": origin},
}

_sent(msgtype, servers) := {
	"point": "event.send",
	"tenant": {"name": "acme.example"},
	"subject": {"tenant": "acme.example"},
	"event": {"type": "m.room.message", "msgtype": msgtype},
	"room": {"servers": servers},
}

test_own_people_fetch_own_files if {
	download.deny == set() with input as _fetched("acme.example", "acme.example") with data.config as _config
}

test_partners_do_not_fetch_our_files if {
	count(download.deny) == 1 with input as _fetched("globex.example", "acme.example") with data.config as _config
}

test_own_people_fetch_files_of_partners if {
	download.deny == set() with input as _fetched("acme.example", "globex.example") with data.config as _config
}

test_files_among_ourselves if send.deny == set() with input as _sent("m.file", ["acme.example"]) with data.config as _config

test_files_with_partners if {
	count(send.deny) == 1 with input as _sent("m.file", ["acme.example", "globex.example"]) with data.config as _config
}

test_texts_with_partners if {
	send.deny == set() with input as _sent("m.text", ["acme.example", "globex.example"]) with data.config as _config
}

test_only_for_tenants_that_want_it if {
	send.deny == set() with input as _sent("m.file", ["acme.example", "globex.example"]) with data.config as {}
}
