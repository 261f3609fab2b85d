package operator.room.create

import data.operator.packs.office_hours

# METADATA
# title: Rooms are made in office hours
deny contains reason if some reason in office_hours.reasons
