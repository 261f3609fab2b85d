package operator.event.send

import data.operator.packs.office_hours

# METADATA
# title: Messages in office hours
deny contains reason if some reason in office_hours.reasons
