package policy

import (
	"context"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"hansa/matrix"
)

// configRoot is where the data of bundles stands: data.config["<tenant>"] and data.config.operator.
const configRoot = "config"

// isPool says whether a top-level key of a tenant's data is a pool; the others are settings.
func isPool(key string) bool {
	switch key {
	case "admin", "bridges", "content", "custom", "domains", "operator", "partners", "previews", "profiles", "push", "rooms", "sessions", "tenant", "whitelist":
		return false
	}
	return true
}

// dataset is the data of all tenants and what the engine itself reads from it. It never changes.
type dataset struct {
	tenants    map[string]*tenantData
	all        storage.Store // every tenant's data, for tests and checks of the whole set
	agreements map[[2]string]*Agreement
	next       time.Time // when an agreement begins or ceases to hold; zero for never
}

// tenantData is what the rules see when one tenant is asked: its own folder and the operator's, nothing of other tenants.
type tenantData struct {
	info         Tenant
	store        storage.Store
	txn          storage.Transaction
	poolsByGroup map[string][]string
	poolsByUser  map[string][]string
	whitelist    bool
	listedUsers  map[string]bool
	listedGroups map[string]bool
}

// readData merges the data files of bundles into the document below data.config.
func readData(files []sourceFile) (map[string]any, Problems) {
	config := map[string]any{}
	var problems Problems
	for _, f := range files {
		if !f.isData() {
			continue
		}
		doc, err := parseData(f)
		if err == nil && !strings.Contains(f.path, "/") && path.Dir(f.path) == "." && doc != nil {
			err = problem(f.name, 0, "data must lie in the folder of a tenant or in operator/")
		}
		if err == nil {
			err = mergeData(config, f, doc)
		}
		problems = append(problems, asProblems(err)...)
	}
	for name := range config {
		if name != strings.ToLower(name) {
			problems = append(problems, problem(name, 0, "the folder of a tenant must be named in lower case"))
		}
	}
	return config, problems
}

func newStore(ctx context.Context, config ast.Object) (storage.Store, storage.Transaction, error) {
	root := ast.NewObject([2]*ast.Term{ast.StringTerm(configRoot), ast.NewTerm(config)})
	store := inmem.NewFromASTObject(root)
	txn, err := store.NewTransaction(ctx)
	return store, txn, err
}

// newDataset builds the stores of the given tenants. Agreements get the state they have at the moment now.
func newDataset(ctx context.Context, config map[string]any, tenants []string, agreements []Agreement, open []string, now time.Time) (*dataset, error) {
	d := &dataset{tenants: map[string]*tenantData{}, agreements: map[[2]string]*Agreement{}}
	parts := map[string]*ast.Term{}
	whole := ast.NewObject()
	for name, doc := range config {
		v, err := ast.InterfaceToValue(doc)
		if err != nil {
			return nil, fmt.Errorf("policy: data of %s: %w", name, err)
		}
		parts[name] = ast.NewTerm(v)
		whole.Insert(ast.StringTerm(name), parts[name])
	}
	var err error
	if d.all, _, err = newStore(ctx, whole); err != nil {
		return nil, err
	}
	for _, name := range tenants {
		own := ast.NewObject()
		for _, key := range []string{name, "operator"} {
			if parts[key] != nil {
				own.Insert(ast.StringTerm(key), parts[key])
			}
		}
		t := &tenantData{}
		if t.store, t.txn, err = newStore(ctx, own); err != nil {
			return nil, err
		}
		doc, _ := config[name].(map[string]any)
		t.read(name, doc)
		d.tenants[name] = t
	}
	d.addAgreements(config, agreements, open, now)
	return d, nil
}

func (t *tenantData) read(name string, doc map[string]any) {
	t.info = Tenant{Name: name, Timezone: "UTC"}
	settings, _ := doc["tenant"].(map[string]any)
	if zone, ok := settings["timezone"].(string); ok && zone != "" {
		t.info.Timezone = zone
	}
	t.poolsByGroup, t.poolsByUser = map[string][]string{}, map[string][]string{}
	for pool, v := range doc {
		p, ok := v.(map[string]any)
		if !ok || !isPool(pool) {
			continue
		}
		for _, g := range stringList(p["groups"]) {
			t.poolsByGroup[g] = append(t.poolsByGroup[g], pool)
		}
		for _, u := range stringList(p["users"]) {
			t.poolsByUser[u] = append(t.poolsByUser[u], pool)
		}
	}
	w, isMap := doc["whitelist"].(map[string]any)
	t.whitelist = isMap && w["enabled"] == true
	t.listedUsers, t.listedGroups = stringSet(w["users"]), stringSet(w["groups"])
}

func stringList(v any) []string {
	list, _ := v.([]any)
	out := make([]string, 0, len(list))
	for _, e := range list {
		if s, ok := e.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

func stringSet(v any) map[string]bool {
	out := map[string]bool{}
	for _, s := range stringList(v) {
		out[s] = true
	}
	return out
}

// addAgreements fills the table of agreement records: those of the database, those that files declare where the database
// has none, and open federation for the domains in open.
func (d *dataset) addAgreements(config map[string]any, agreements []Agreement, open []string, now time.Time) {
	for _, a := range agreements {
		a.Owner, a.Partner = normal(a.Owner), normal(a.Partner)
		d.add(a, now)
	}
	for owner := range d.tenants {
		doc, _ := config[owner].(map[string]any)
		partners, _ := doc["partners"].(map[string]any)
		for name, v := range partners {
			entry, ok := v.(map[string]any)
			partner := normal(name)
			if _, has := d.agreements[[2]string{owner, partner}]; has || !ok {
				continue
			}
			d.add(declared(owner, partner, entry), now)
		}
		for _, p := range open {
			if _, has := d.agreements[[2]string{owner, normal(p)}]; !has {
				d.add(Agreement{Owner: owner, Partner: normal(p), State: "active",
					Scope: &Scope{Direction: "both", Pools: AllPools(), Features: AllFeatures()}}, now)
			}
		}
	}
}

// normal brings a server name to the form in which names are compared: lower case, no trailing dot, port kept.
func normal(name string) string {
	if isNormal(name) {
		return name
	}
	name = strings.ToLower(name)
	host, port, hasPort := strings.Cut(name, ":")
	host = strings.TrimSuffix(host, ".")
	if hasPort && !strings.HasPrefix(name, "[") {
		name = host + ":" + port
	} else if !hasPort {
		name = host
	}
	if s, err := matrix.ParseServerName(name); err == nil {
		return string(s)
	}
	return name
}

// isNormal recognises the usual case without work.
func isNormal(name string) bool {
	for i := range len(name) {
		c := name[i]
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' && i+1 < len(name) {
			continue
		}
		return false
	}
	return true
}

func declared(owner, partner string, entry map[string]any) Agreement {
	a := Agreement{Owner: owner, Partner: partner, State: "active", Scope: &Scope{Direction: "both"}}
	if s, ok := entry["state"].(string); ok {
		a.State = s
	}
	if s, ok := entry["direction"].(string); ok {
		a.Scope.Direction = s
	}
	if entry["pools"] == "*" {
		a.Scope.Pools = AllPools()
	} else if list, ok := entry["pools"].([]any); ok {
		for _, e := range list {
			m, _ := e.(map[string]any)
			ours, ok1 := m["ours"].(string)
			theirs, ok2 := m["theirs"].(string)
			if ok1 && ok2 {
				a.Scope.Pools = append(a.Scope.Pools, PoolPair{ours, theirs})
			}
		}
	}
	if entry["features"] == "*" {
		a.Scope.Features = AllFeatures()
	} else {
		a.Scope.Features = stringList(entry["features"])
	}
	a.ValidFrom, a.ValidUntil = instant(entry["valid_from"]), instant(entry["valid_until"])
	return a
}

func instant(v any) time.Time {
	s, _ := v.(string)
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t
		}
	}
	return time.Time{}
}

// add stores a record with the state that it has now, and notes when that changes.
func (d *dataset) add(a Agreement, now time.Time) {
	if a.State == "active" {
		switch {
		case !a.ValidUntil.IsZero() && !now.Before(a.ValidUntil):
			a.State = "expired"
		case now.Before(a.ValidFrom):
			a.State = "proposed"
			d.changesAt(a.ValidFrom)
		case !a.ValidUntil.IsZero():
			d.changesAt(a.ValidUntil)
		}
	}
	if d.tenants[a.Partner] != nil {
		a.Mutual = true
	}
	d.agreements[[2]string{a.Owner, a.Partner}] = &a
}

func (d *dataset) changesAt(t time.Time) {
	if d.next.IsZero() || t.Before(d.next) {
		d.next = t
	}
}

// agreement returns the record that owner holds about partner, nil when there is none.
func (d *dataset) agreement(owner, partner string) *Agreement {
	if a := d.agreements[[2]string{owner, partner}]; a != nil {
		return a
	}
	a := d.agreements[[2]string{owner, "*"}]
	if a != nil && d.tenants[partner] != nil && !a.Mutual {
		m := *a
		m.Mutual = true
		return &m
	}
	return a
}
