package main

// demoPolicy are the files of the demo's policy, by their path below policy/.
func demoPolicy() map[string]string {
	return map[string]string{
		demoAcme + "/pools.yaml": `# The pools of Acme. People come in with "hansa user add ... --pool research", or by a group: see docs/policies.md.
#
# Try it: change closed to open in one of them, save, and let Dora look for Carla again.

research:
  title: Research
  contact: closed

trading:
  title: Trading
  contact: closed
`,
		demoAcme + "/files.rego": `package tenants["acme.localhost"].event.send

# METADATA
# title: Traders send no files
deny contains {"code": "no_files", "message": "People in trading cannot send files."} if {
	"trading" in input.subject.pools
	input.event.msgtype in {"m.file", "m.image", "m.video", "m.audio"}
}
`,
		demoAcme + "/files_test.rego": `package tenants["acme.localhost"].event.send_test

import data.tenants["acme.localhost"].event.send

test_traders_send_no_files if {
	count(send.deny) == 1 with input as {"subject": {"pools": ["trading"]}, "event": {"msgtype": "m.file"}}
}

test_traders_send_text if {
	count(send.deny) == 0 with input as {"subject": {"pools": ["trading"]}, "event": {"msgtype": "m.text"}}
}

test_others_send_files if {
	count(send.deny) == 0 with input as {"subject": {"pools": ["research"]}, "event": {"msgtype": "m.file"}}
}
`,
		demoGlobex + "/settings.yaml": `# Globex keeps no pools: everybody there may meet everybody, and the people of Acme that the agreement covers.
`,
	}
}
