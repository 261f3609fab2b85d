package policy

import (
	"maps"
	"slices"
)

// Facts is what the account store knows about a user.
type Facts struct {
	// UserID is the Matrix user ID.
	UserID string
	// Tenant is the user's domain; empty for the server name in UserID.
	Tenant string
	// Kind is the kind of party; empty for `user`.
	Kind string
	// Groups are the groups that a directory or an admin put the user in.
	Groups []string
	// Pools are the pools that an admin put the user in.
	Pools []string
	// Attributes are further facts.
	Attributes map[string]string
	// Roles are the user's roles in this deployment.
	Roles []string
	// Admin adds the role `admin`.
	Admin bool
	// Listed says that an admin put the account itself on the whitelist.
	Listed bool
	// Bridge is the id of the application service that a ghost or bot belongs to.
	Bridge string
}

// Resolve makes a party of facts: it adds the pools that the active data gives to the user's groups, and finds out whether
// the whitelist names the user. A party is good for one generation; after a change (Changed) it must be resolved again.
func (e *Engine) Resolve(f Facts) *Party {
	s := e.snapshot(e.opts.Now())
	if f.Tenant == "" {
		f.Tenant = serverOf(f.UserID)
	}
	p := &Party{Kind: f.Kind, ID: f.UserID, Tenant: normal(f.Tenant), Groups: sortedSet(f.Groups), Attributes: maps.Clone(f.Attributes),
		Roles: sortedSet(f.Roles), Pools: []string{}}
	if p.Kind == "" {
		p.Kind = "user"
	}
	if p.Attributes == nil {
		p.Attributes = map[string]string{}
	}
	if f.Admin {
		p.Roles = sortedSet(append(p.Roles, "admin"))
	}
	if f.Bridge != "" {
		p.Bridge = &Bridge{ID: f.Bridge}
	}
	t := s.data.tenants[p.Tenant]
	if t == nil {
		return p
	}
	p.Local = true
	pools := slices.Concat(f.Pools, t.poolsByUser[f.UserID])
	p.Listed = !t.whitelist || f.Listed || t.listedUsers[f.UserID]
	for _, g := range p.Groups {
		pools = append(pools, t.poolsByGroup[g]...)
		p.Listed = p.Listed || t.listedGroups[g]
	}
	p.Pools = sortedSet(pools)
	return p
}

func serverOf(userID string) string {
	for i := range len(userID) {
		if userID[i] == ':' {
			return userID[i+1:]
		}
	}
	return ""
}

func sortedSet(in []string) []string {
	out := slices.Clone(in)
	if out == nil {
		out = []string{}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
