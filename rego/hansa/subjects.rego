# METADATA
# title: Subjects
# description: |
#   Who can be asked about at all. Guests are never let in. A subject has an id, a tenant and one of the known kinds; a
#   server speaks only for itself, and only at the points that name it.
package hansa.subjects

# METADATA
# description: The subject is a person, a bot or a bridge of a named tenant, and it is known which tenant is asked.
default subject := false

subject if {
	input.subject.kind in {"user", "bot", "ghost", "bridge"}
	input.subject.tenant != ""
	input.tenant.name != ""
}

subject if input.subject.kind == "operator"

# METADATA
# description: The target is a person, a bot or a bridge of a named tenant.
default target := false

target if {
	input.target.kind in {"user", "bot", "ghost", "bridge"}
	input.target.tenant != ""
}

# METADATA
# description: The subject is a person, or a whole server that asks for its users.
default subject_or_server := false

subject_or_server if subject == true

subject_or_server if {
	input.subject.kind == "server"
	input.subject.tenant != ""
	input.tenant.name != ""
}

# METADATA
# description: The target is a person, or a whole server of which it is asked what its users may know.
default target_or_server := false

target_or_server if target == true

target_or_server if {
	input.target.kind == "server"
	input.target.tenant != ""
}

# METADATA
# description: Somebody who may ask for a new account, a stranger included.
default registrant := false

registrant if subject == true

registrant if input.subject.kind == "anonymous"

# METADATA
# description: The target belongs to the tenant that is asked.
default target_own := false

target_own if input.target.tenant == input.tenant.name

# METADATA
# description: The subject is a whole server.
default server := false

server if input.subject.kind == "server"

# METADATA
# description: The subject is named. Enough for leaving, which must always work.
default named := false

named if input.subject.id != ""

# METADATA
# description: The subject belongs to the tenant that is asked, or is the operator of the deployment.
default own_tenant := false

own_tenant if input.subject.tenant == input.tenant.name

own_tenant if input.subject.kind == "operator"

# METADATA
# description: Subject and target are the same account, as the contact matrix says, so that no rule needs to tell people apart.
default self := false

self if input.contact.self == true

# METADATA
# description: Subject and target belong to the same tenant.
default same_tenant := false

same_tenant if {
	input.subject.tenant == input.target.tenant
	input.subject.tenant != ""
}
