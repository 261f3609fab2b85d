package tenants["hospital.example"].room.read_test

import data.tenants["hospital.example"].room.read

_ask(labels, attributes) := {"room": {"labels": labels}, "subject": {"attributes": attributes}}

test_on_duty if read.deny == set() with input as _ask(["ward"], {"duty": "on"})

test_off_duty if count(read.deny) == 1 with input as _ask(["ward"], {"duty": "off"})

test_nobody_knows if count(read.deny) == 1 with input as _ask(["ward"], {})

test_other_rooms if read.deny == set() with input as _ask(["canteen"], {})
