# METADATA
# title: Media
# description: Whose file is asked for. A file that comes from neither the tenant nor the judged server is never handed out.
package hansa.media

import data.hansa.agreements

# METADATA
# description: The file is kept by the tenant that is asked or by the server that was judged.
default origin := false

origin if input.media.server == input.tenant.name

origin if input.media.server == input.server.name

# METADATA
# description: One of the tenant's own people asks for one of the tenant's own files.
default own := false

own if {
	input.media.server == input.tenant.name
	agreements.elsewhere == false
}
