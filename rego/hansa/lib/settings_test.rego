package hansa.lib.settings_test

import data.hansa.lib.settings

_config := {"acme.example": {"rooms": {"create": "nobody"}}, "operator": {"domains": {"deny": ["evil.example"]}}}

test_tenant_reads_its_own_folder if {
	settings.tenant == {"rooms": {"create": "nobody"}} with input as {"tenant": {"name": "acme.example"}} with data.config as _config
}

test_tenant_without_folder_has_empty_settings if {
	settings.tenant == {} with input as {"tenant": {"name": "globex.example"}} with data.config as _config
}

test_no_data_at_all_gives_empty_settings if {
	[settings.tenant, settings.operator] == [{}, {}] with input as {"tenant": {"name": "globex.example"}} with data.config as {}
}

test_operator_reads_the_operator_folder if {
	settings.operator.domains.deny == ["evil.example"] with input as {"tenant": {"name": "acme.example"}} with data.config as _config
}
