package operator.media.download

import data.operator.packs.no_media_to_partners

# METADATA
# title: Files are not handed out
deny contains reason if some reason in no_media_to_partners.reasons
