package tenants["acme.example"].project_test

import data.tenants["acme.example"].project

test_before if project.over == false with input as {"time": "2026-12-31T23:59:59Z"}

test_after if project.over with input as {"time": "2027-01-01T00:00:00Z"}

test_without_time if project.over with input as {}
