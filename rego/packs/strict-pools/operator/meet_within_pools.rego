package operator.contact

import data.operator.packs.strict_pools

# METADATA
# title: People meet within their pools
deny contains reason if some reason in strict_pools.reasons
