package adminapi

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"hansa/federation/agreement"
	"hansa/homeserver/account"
	"hansa/policy"
)

// Every route names its decision point, or says why it has none.
func TestRoutes_AreBound(t *testing.T) {
	t.Parallel()
	points := []policy.Point{policy.AdminAction, policy.PartnerChange, policy.PolicyChange}
	actions := map[string]bool{}
	for _, r := range (&API{}).routes() {
		switch {
		case r.fn == nil:
			t.Errorf("%s %s does nothing", r.method, r.path)
		case r.none != "":
			if r.point != "" || r.action != "" {
				t.Errorf("%s %s is bound and not bound", r.method, r.path)
			}
		case !slices.Contains(points, r.point) || !strings.Contains(r.action, "."):
			t.Errorf("%s %s is not bound to a decision point (%q %q): put it into its line of routes.go", r.method, r.path, r.point, r.action)
		case actions[r.action]:
			t.Errorf("%s %s: another route has the action %s", r.method, r.path, r.action)
		}
		actions[r.action] = true
		if r.public && r.none == "" {
			t.Errorf("%s %s is public and asks nobody in particular", r.method, r.path)
		}
	}
}

type document struct {
	Paths      map[string]map[string]operation `yaml:"paths"`
	Components struct {
		Parameters map[string]yaml.Node `yaml:"parameters"`
		Schemas    map[string]struct {
			Properties map[string]yaml.Node `yaml:"properties"`
		} `yaml:"schemas"`
	} `yaml:"components"`
}

type operation struct {
	OperationID string               `yaml:"operationId"`
	Description string               `yaml:"description"`
	Point       string               `yaml:"x-decision-point"`
	Security    *[]any               `yaml:"security"`
	Parameters  []map[string]any     `yaml:"parameters"`
	Responses   map[string]yaml.Node `yaml:"responses"`
	RequestBody map[string]any       `yaml:"requestBody"`
	Rest        map[string]yaml.Node `yaml:",inline"`
}

func read(t *testing.T) document {
	t.Helper()
	var d document
	if err := yaml.Unmarshal(openAPI, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestOpenAPI_DescribesEveryRoute(t *testing.T) {
	t.Parallel()
	d := read(t)
	described := 0
	for _, item := range d.Paths {
		described += len(item)
	}
	routes := (&API{}).routes()
	if described != len(routes) {
		t.Errorf("openapi.yaml describes %d operations, there are %d routes", described, len(routes))
	}
	for _, r := range routes {
		op, ok := d.Paths[r.path][strings.ToLower(r.method)]
		if !ok {
			t.Errorf("openapi.yaml lacks %s %s", r.method, r.path)
			continue
		}
		if want := strings.TrimSpace(string(r.point) + " " + r.action); op.Point != want {
			t.Errorf("%s %s: x-decision-point is %q, want %q", r.method, r.path, op.Point, want)
		}
		if op.OperationID == "" || op.Description == "" || len(op.Responses) == 0 {
			t.Errorf("%s %s is hardly described", r.method, r.path)
		}
		if public := op.Security != nil && len(*op.Security) == 0; public != r.public {
			t.Errorf("%s %s: described as public: %t", r.method, r.path, public)
		}
		for _, seg := range strings.Split(r.path, "/") {
			name := strings.Trim(seg, "{}")
			if name != seg && !slices.ContainsFunc(op.Parameters, func(p map[string]any) bool { return p["name"] == name && p["in"] == "path" }) {
				t.Errorf("%s %s: the parameter %s is not described", r.method, r.path, name)
			}
		}
	}
}

// The schemas name the members that the types have.
func TestOpenAPI_SchemasAreTheTypes(t *testing.T) {
	t.Parallel()
	d := read(t)
	for name, v := range map[string]any{"ServerInfo": ServerInfo{}, "TenantInfo": TenantInfo{}, "TenantList": TenantList{}, "Account": account.Account{},
		"UserList": UserList{}, "NewUser": NewUser{}, "UserFacts": UserFacts{}, "NewPassword": NewPassword{}, "Terms": agreement.Terms{},
		"Agreement": agreement.Record{}, "AgreementList": AgreementList{}, "PolicyStatus": policy.Status{}, "Question": Question{}, "Answer": Answer{},
		"PolicyDecision": policy.Decision{}, "LayerTrace": policy.LayerTrace{}, "Decision": Decision{}, "DecisionList": DecisionList{},
		"Verification": Verification{}, "Reloaded": Reloaded{}, "Problem": policy.Problem{}, "Reason": policy.Reason{}, "PoolPair": policy.PoolPair{}} {
		schema, ok := d.Components.Schemas[name]
		if !ok {
			t.Errorf("openapi.yaml lacks the schema %s", name)
			continue
		}
		var got, want []string
		for p := range schema.Properties {
			got = append(got, p)
		}
		typ := reflect.TypeOf(v)
		for i := range typ.NumField() {
			if tag, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ","); tag != "" && tag != "-" {
				want = append(want, tag)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("schema %s (-type +openapi.yaml):\n%s", name, diff)
		}
	}
}

// References lead somewhere.
func TestOpenAPI_ReferencesResolve(t *testing.T) {
	t.Parallel()
	d := read(t)
	for _, line := range strings.Split(string(openAPI), "\n") {
		for _, part := range strings.Split(line, `$ref: "`)[1:] {
			ref, _, _ := strings.Cut(part, `"`)
			name := ref[strings.LastIndex(ref, "/")+1:]
			_, schema := d.Components.Schemas[name]
			_, parameter := d.Components.Parameters[name]
			if !schema && !parameter && ref != "#/components/responses/Error" {
				t.Errorf("%s leads nowhere", ref)
			}
		}
	}
}
