package policy

// needs is which of the engine's facts the rules of a point read.
type needs struct{ contact, roomContact bool }

// pointPlan is what is asked for one point of one tenant.
type pointPlan struct {
	library  *layer
	narrow   []*layer // operator, tenant
	pools    map[string]*layer
	values   []access
	presence []access
	clock    bool
	only     want
}

// plans prepares, for every point, the plan of tenants without rules of their own and those of the others.
func (rs *ruleset) makePlans() {
	rs.needs = map[Point]needs{}
	rs.plain = map[Point]*pointPlan{}
	rs.custom = map[string]map[Point]*pointPlan{}
	for _, info := range Points() {
		p := info.Point
		n := needs{}
		for _, l := range rs.layersOf(p) {
			n.contact = n.contact || l.reads.readsPrefix("contact")
			n.roomContact = n.roomContact || l.reads.readsPrefix("room", "contact")
		}
		rs.needs[p] = n
		rs.plain[p] = rs.makePlan(p, nil, nil)
	}
	for tenant, layers := range rs.tenants {
		for p := range layers {
			mapOf(rs.custom, tenant)[p] = nil
		}
	}
	for tenant, pools := range rs.pools {
		for _, layers := range pools {
			for p := range layers {
				mapOf(rs.custom, tenant)[p] = nil
			}
		}
	}
	for tenant, points := range rs.custom {
		for p := range points {
			points[p] = rs.makePlan(p, rs.tenants[tenant], rs.pools[tenant])
		}
	}
}

func (rs *ruleset) makePlan(p Point, tenant map[Point]*layer, pools map[string]map[Point]*layer) *pointPlan {
	pl := &pointPlan{library: rs.library[p], pools: map[string]*layer{}}
	all := newReads()
	use := func(l *layer) bool {
		if l != nil {
			all.add(l.reads)
		}
		return l != nil
	}
	use(pl.library)
	if l := rs.operator[p]; use(l) {
		pl.narrow = append(pl.narrow, l)
	}
	if l := tenant[p]; use(l) {
		pl.narrow = append(pl.narrow, l)
	}
	for name, layers := range pools {
		if l := layers[p]; use(l) {
			pl.pools[name] = l
			all.values["subject\x00pools"], all.values["target\x00pools"] = []string{"subject", "pools"}, []string{"target", "pools"}
		}
	}
	pl.values, pl.presence, pl.only = rs.accesses(all)
	pl.clock = all.clock
	return pl
}

func (rs *ruleset) plan(p Point, tenant string) *pointPlan {
	if pl := rs.custom[tenant][p]; pl != nil {
		return pl
	}
	return rs.plain[p]
}
