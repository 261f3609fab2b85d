# METADATA
# title: Profiles
# description: |
#   Which parts of their own profile people may change. Section `profiles`: `locked` lists the fields that the
#   organisation keeps (displayname, avatar_url, ...), `write` says who may change the others.
package hansa.profiles

import data.hansa.lib.settings
import data.hansa.lib.who

default writable := false

writable if input.subject.kind == "operator"

writable if {
	locked := object.get(settings.tenant, ["profiles", "locked"], [])
	is_array(locked)
	every field in locked { field != input.account.field }
	who.matches(object.get(settings.tenant, ["profiles", "write"], "everyone"), input.subject)
}
