package adminapi

import "hansa/policy"

// prefix is where the API begins.
const prefix = "/_hansa/admin/v1"

// route is one line of the table.
type route struct {
	method, path string
	// point and action are what is asked before the route has an effect or an answer; none says why nothing is.
	point  policy.Point
	action string
	none   string
	// below says that the service which the route calls asks, with what it knows of the target.
	below bool
	// public routes want no token.
	public bool
	// operator routes are for the operator alone: what they do is no tenant's business.
	operator bool
	fn       handler
}

// routes is the table of the API. The file openapi.yaml describes each line; a test compares them.
func (a *API) routes() []route {
	admin := func(method, path, action string, fn handler) route {
		return route{method: method, path: path, point: policy.AdminAction, action: action, fn: fn}
	}
	user := func(method, path, action string, fn handler) route {
		r := admin(method, path, action, fn)
		r.below = true
		return r
	}
	partner := func(verb string, fn handler) route {
		return route{method: "POST", path: "/agreements/{partner}/" + verb, point: policy.PartnerChange, action: "partner." + verb, below: true, fn: fn}
	}
	return []route{
		{method: "GET", path: "/openapi.yaml", none: "the description of this API is the same for everybody", public: true, fn: a.openAPI},
		admin("GET", "/server", "server.show", a.server),
		admin("GET", "/tenants", "tenant.list", a.listTenants),
		admin("GET", "/tenants/{tenant}", "tenant.show", a.showTenant),

		user("GET", "/users", "user.list", a.listUsers),
		user("POST", "/users", "user.add", a.addUser),
		user("GET", "/users/{user_id}", "user.show", a.showUser),
		user("PUT", "/users/{user_id}/facts", "user.facts", a.setFacts),
		user("POST", "/users/{user_id}/lock", "user.lock", a.lockUser(true)),
		user("POST", "/users/{user_id}/unlock", "user.unlock", a.lockUser(false)),
		user("POST", "/users/{user_id}/suspend", "user.suspend", a.suspendUser(true)),
		user("POST", "/users/{user_id}/unsuspend", "user.unsuspend", a.suspendUser(false)),
		user("POST", "/users/{user_id}/password", "user.passwd", a.setPassword),
		user("POST", "/users/{user_id}/deactivate", "user.deactivate", a.closeUser),
		user("POST", "/users/{user_id}/wipe", "user.wipe", a.wipeUser),

		admin("GET", "/agreements", "partner.list", a.listAgreements),
		partner("propose", a.propose),
		partner("approve", a.approve),
		partner("suspend", a.suspend),
		partner("end", a.end),

		admin("GET", "/bridges", "bridge.list", a.listBridges),
		user("POST", "/bridges/{bridge}/suspend", "bridge.suspend", a.suspendBridge(true)),
		user("POST", "/bridges/{bridge}/resume", "bridge.resume", a.suspendBridge(false)),

		admin("GET", "/policy/status", "policy.status", a.policyStatus),
		admin("POST", "/policy/explain", "policy.explain", a.explain),
		{method: "POST", path: "/policy/reload", point: policy.PolicyChange, action: "policy.reload", operator: true, fn: a.reload},

		admin("GET", "/audit/decisions", "audit.search", a.searchDecisions),
		admin("GET", "/audit/decisions/{id}", "audit.show", a.showDecision),
		admin("POST", "/audit/verify", "audit.verify", a.verifyDecisions),
	}
}
