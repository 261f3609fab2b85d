package policy

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// allowedBuiltins lists what rules may call: functions whose answer depends on their arguments alone (and the clock), with
// bounded cost. Everything else of OPA, now or in a later release, is unknown to the compiler: no network, no files, no
// runtime, no tokens, no randomness, no parsing of Rego.
const allowedBuiltins = `
abs all any assign array.concat array.flatten array.reverse array.slice
base64.decode base64.encode base64.is_valid base64url.decode base64url.encode
bits.and bits.lsh bits.negate bits.or bits.rsh bits.xor
ceil concat contains count crypto.sha256 div endswith eq equal floor format_int
glob.match glob.quote_meta gt gte hex.decode hex.encode
indexof indexof_n internal.member_2 internal.member_3 internal.print internal.template_string internal.test_case intersection
is_array is_boolean is_null is_number is_object is_set is_string
json.filter json.is_valid json.marshal json.remove json.unmarshal
lower lt lte max min minus mul neq net.cidr_contains net.cidr_intersects net.cidr_is_valid
numbers.range object.filter object.get object.keys object.remove object.subset object.union object.union_n or and plus print product
regex.is_valid regex.match regex.replace regex.split regex.find_n
rem replace round semver.compare semver.is_valid sort split sprintf startswith strings.any_prefix_match strings.any_suffix_match
strings.count strings.render_template strings.replace_n strings.reverse substring sum
time.add_date time.clock time.date time.diff time.format time.now_ns time.parse_duration_ns time.parse_ns time.parse_rfc3339_ns time.weekday
to_number trace trim trim_left trim_prefix trim_right trim_space trim_suffix type_name union units.parse units.parse_bytes upper
urlquery.decode urlquery.encode walk
`

// capabilities is what Rego may use here: the allow-list, every language feature, and no network for schemas.
func capabilities() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	allowed := strings.Fields(allowedBuiltins)
	slices.Sort(allowed)
	c.Builtins = slices.DeleteFunc(slices.Clone(c.Builtins), func(b *ast.Builtin) bool {
		_, ok := slices.BinarySearch(allowed, b.Name)
		return !ok
	})
	c.AllowNet = []string{}
	return c
}
