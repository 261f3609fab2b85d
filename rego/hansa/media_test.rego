package hansa.media_test

import data.hansa.fixtures
import data.hansa.media

_ask(subject, origin, server) := fixtures.ask("media.download", {"subject": subject, "media": {"server": origin}, "server": {"name": server}})

_without_server(subject, origin) := fixtures.ask("media.download", {"subject": subject, "media": {"server": origin}})

test_own if {
	media.own with input as _without_server(fixtures.ann, "acme.example")
	media.own == false with input as _without_server(fixtures.ann, "globex.example")
	media.own == false with input as _without_server(fixtures.gus, "acme.example")
}

test_origin_must_be_the_judged_server if {
	media.origin with input as _ask(fixtures.ann, "globex.example", "globex.example")
	media.origin with input as _ask(fixtures.gus, "acme.example", "globex.example")
	media.origin == false with input as _ask(fixtures.ann, "evil.example", "globex.example")
	media.origin == false with input as _without_server(fixtures.ann, "evil.example")
}

test_unnamed_origin if {
	media.origin == false with input as fixtures.ask("media.download", {"subject": fixtures.ann})
	media.own == false with input as fixtures.ask("media.download", {"subject": fixtures.ann})
}
