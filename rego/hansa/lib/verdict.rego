# METADATA
# title: Verdict
# description: |
#   The answer of a decision point whose checks did not all pass. Every point says itself, in one positive rule, that it
#   allows when the outcomes of its checks are nothing but true; whatever else happens ends here.
package hansa.lib.verdict

import data.hansa.messages

# METADATA
# description: A denial with a reason for each check, of an object of check name and outcome, that is not exactly true.
denied(checks) := {"allow": false, "obligations": {}, "reasons": {reason |
	some name, outcome in checks
	outcome != true
	text := object.get(messages.catalogue, name, messages.unknown)
	reason := {"code": text.code, "message": text.message, "rule": concat("", ["hansa.", name])}
}}
