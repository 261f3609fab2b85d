package operator.room.invite

import data.operator.packs.office_hours

# METADATA
# title: Invitations in office hours
deny contains reason if some reason in office_hours.reasons
