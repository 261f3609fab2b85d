package operator.event.send

import data.operator.packs.no_media_to_partners

# METADATA
# title: Files are not sent to partners
deny contains reason if some reason in no_media_to_partners.reasons
